#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace llmz::dist {

/// The one thread of this process that calls MPI, from MPI_Init to MPI_Finalize: any MPI library will do, whatever it
/// promises about threads, and a sum goes on while the caller computes. It runs at low priority: while it waits for
/// other ranks it turns in a circle, and must not take the processor from who computes.
class MpiThread {
 public:
  /// The thread of this process, started with MPI at the first call. MPI ends when nobody holds it any more; it cannot
  /// be started again.
  static std::shared_ptr<MpiThread> get();
  ~MpiThread();
  MpiThread(const MpiThread&) = delete;
  MpiThread& operator=(const MpiThread&) = delete;

  /// Does `task` after all before it. An exception of it comes out of the next `drain`.
  void post(std::function<void()> task);
  /// Returns when everything posted is done.
  void drain();
  void run(std::function<void()> task) {
    post(std::move(task));
    drain();
  }

 private:
  MpiThread();
  void work();
  void perform(const std::function<void()>& task);

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::exception_ptr error_;
  bool busy_ = false, stop_ = false;
  std::thread thread_;
};

/// Throws Error naming `call` unless `code` is MPI_SUCCESS.
void must_mpi(int code, const char* call);

}  // namespace llmz::dist
