#include "src/dist/mpi_thread.h"

#include <mpi.h>
#include <sys/resource.h>
#include <unistd.h>

#include <utility>

#include "llmz/core/error.h"

namespace llmz::dist {
namespace {

/// A tenth of the time of a thread that computes on the same processor, and all of it where none does.
constexpr int kNice = 10;

}  // namespace

void must_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail("MPI: {} failed: {}", call, text);
}

std::shared_ptr<MpiThread> MpiThread::get() {
  static std::weak_ptr<MpiThread> of_process;
  if (auto there = of_process.lock()) return there;
  std::shared_ptr<MpiThread> made(new MpiThread());
  of_process = made;
  made->run([] {
    int finalized = 0, provided = 0;
    MPI_Finalized(&finalized);
    check(finalized == 0, "MPI was started in this process before; it cannot be started again");
    must_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    check(provided >= MPI_THREAD_FUNNELED, "this MPI library cannot be used by a program with threads");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  });
  return made;
}

MpiThread::MpiThread() : thread_([this] { work(); }) {}

MpiThread::~MpiThread() {
  post([] {
    int started = 0;
    MPI_Initialized(&started);
    if (started != 0) MPI_Finalize();
  });
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void MpiThread::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void MpiThread::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return tasks_.empty() && !busy_; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void MpiThread::work() {
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);  // on Linux of this thread alone
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const auto task = std::move(tasks_.front());
    tasks_.pop_front();
    busy_ = true;
    lock.unlock();
    perform(task);
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

void MpiThread::perform(const std::function<void()>& task) {
  try {
    task();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

}  // namespace llmz::dist
