#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

// One block at a time; its threads are fibers that run until they end or wait.

#if defined(__x86_64__)
// Saves the registers that a call must preserve on the stack, the stack pointer in *from, and goes on at `to`.
extern "C" void cuda_emulation_switch(void** from, void* to);
asm(R"(
.text
.globl cuda_emulation_switch
.type cuda_emulation_switch, @function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulation_switch, .-cuda_emulation_switch
)");
#endif

namespace cuda_emulation {
namespace {

constexpr size_t kStack = 256 * 1024;
constexpr size_t kSharedLimit = 227 * 1024;  // of one block on an H100
constexpr int kWarp = 32, kMaxThreads = 1024;

enum class State { ready, at_block, at_warp, done };

class Fiber {
 public:
  Fiber() {
    stack_ = static_cast<char*>(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stack_ == MAP_FAILED) throw std::runtime_error("no memory for the stack of an emulated thread");
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void start(void (*entry)()) {
#if defined(__x86_64__)
    auto** top = reinterpret_cast<void**>(stack_ + kStack);
    *--top = nullptr;  // keeps the stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    pointer_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#endif
  }
#if defined(__x86_64__)
  void enter(void** from) { cuda_emulation_switch(from, pointer_); }
  void leave(void* to) { cuda_emulation_switch(&pointer_, to); }
#else
  void enter(ucontext_t* from) { swapcontext(from, &context_); }
  void leave(ucontext_t* to) { swapcontext(&context_, to); }
#endif

  State state = State::done;
  unsigned mask = 0;  ///< of the warp barrier at which it waits
  int turn = 0;       ///< exchanges so far, for the double buffer
  uint3 index{};

 private:
  char* stack_;
#if defined(__x86_64__)
  void* pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
};

struct Block {
  std::vector<Fiber*> fibers = std::vector<Fiber*>(kMaxThreads);
  std::vector<int> order;
  int threads = 0, current = 0;
  const std::function<void()>* body = nullptr;
  std::exception_ptr error;
  std::vector<unsigned char> shared = std::vector<unsigned char>(kSharedLimit + 1024);
  /// Two sets of words a warp, used in turn: nobody writes into the one that others may still read.
  std::vector<unsigned char> words = std::vector<unsigned char>(2 * kMaxThreads * 64);
#if defined(__x86_64__)
  void* scheduler = nullptr;
#else
  ucontext_t scheduler;
#endif
  bool running = false;
};
Block block;

Fiber& self() { return *block.fibers[static_cast<size_t>(block.current)]; }

void entry() {
  try {
    (*block.body)();
  } catch (...) {
    block.error = std::current_exception();
  }
  self().state = State::done;
#if defined(__x86_64__)
  self().leave(block.scheduler);
#else
  self().leave(&block.scheduler);
#endif
  std::abort();  // a fiber that ended is not entered again
}

void wait(State state) {
  self().state = state;
#if defined(__x86_64__)
  self().leave(block.scheduler);
#else
  self().leave(&block.scheduler);
#endif
}

/// Lets the lanes of a warp go on whose whole mask has arrived. Whether any did.
bool release_warp(int first) {
  unsigned waiting = 0, gone = 0;
  for (int lane = 0; lane < kWarp && first + lane < block.threads; ++lane) {
    const State s = block.fibers[static_cast<size_t>(first + lane)]->state;
    waiting |= s == State::at_warp ? 1u << lane : 0u;
    gone |= s == State::done ? 1u << lane : 0u;
  }
  bool any = false;
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((waiting >> lane & 1u) == 0) continue;
    Fiber& fiber = *block.fibers[static_cast<size_t>(first + lane)];
    if ((fiber.mask & gone) != 0) throw std::runtime_error("a warp operation names lanes that have left the kernel");
    if ((fiber.mask & waiting) != fiber.mask) continue;
    fiber.state = State::ready;
    any = true;
  }
  return any;
}

bool release_block() {
  int waiting = 0, alive = 0;
  for (int i = 0; i < block.threads; ++i) {
    const State s = block.fibers[static_cast<size_t>(i)]->state;
    alive += s != State::done;
    waiting += s == State::at_block;
  }
  if (waiting == 0 || waiting != alive) return false;
  for (int i = 0; i < block.threads; ++i) {
    if (block.fibers[static_cast<size_t>(i)]->state == State::at_block) {
      block.fibers[static_cast<size_t>(i)]->state = State::ready;
    }
  }
  return true;
}

void run_ready(const std::vector<int>& order) {
  for (int i : order) {
    Fiber& fiber = *block.fibers[static_cast<size_t>(i)];
    if (fiber.state != State::ready) continue;
    block.current = i;
    threadIdx = fiber.index;
    fiber.enter(&block.scheduler);
    if (block.error) std::rethrow_exception(std::exchange(block.error, nullptr));
  }
}

void run_block(const char* name) {
  for (int i = 0; i < block.threads; ++i) {
    Fiber*& fiber = block.fibers[static_cast<size_t>(i)];
    if (fiber == nullptr) fiber = new Fiber;
    const auto n = static_cast<unsigned>(i);
    fiber->index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
    fiber->turn = 0;
    fiber->state = State::ready;
    fiber->start(entry);
  }
  for (;;) {
    run_ready(block.order);
    bool released = false, all_done = true;
    for (int warp = 0; warp < block.threads; warp += kWarp) released |= release_warp(warp);
    if (!released) released = release_block();
    for (int i = 0; i < block.threads; ++i) all_done &= block.fibers[static_cast<size_t>(i)]->state == State::done;
    if (all_done) return;
    if (!released) throw std::runtime_error(std::string(name) + ": its threads wait at different barriers");
  }
}

/// Threads take turns in this order: 0, 1, 2 … unless LLMZ_EMULATION_ORDER says `reverse` or `shuffle`.
std::vector<int> turns(int threads) {
  static const char* const wanted = std::getenv("LLMZ_EMULATION_ORDER");
  std::vector<int> order(static_cast<size_t>(threads));
  std::iota(order.begin(), order.end(), 0);
  if (wanted == nullptr) return order;
  if (std::string_view(wanted) == "reverse") std::reverse(order.begin(), order.end());
  static std::mt19937 generator(1);
  if (std::string_view(wanted) == "shuffle") std::shuffle(order.begin(), order.end(), generator);
  return order;
}

}  // namespace

void run_kernel(const char* name, dim3 grid, dim3 threads, size_t shared_bytes, const std::function<void()>& body) {
  if (block.running) throw std::runtime_error("a kernel launches a kernel");
  if (shared_bytes > kSharedLimit) throw std::runtime_error(std::string(name) + " asks for too much shared memory");
  block.running = true;
  block.threads = static_cast<int>(threads.x * threads.y * threads.z);
  block.body = &body;
  block.order = turns(block.threads);
  gridDim = grid;
  blockDim = threads;
  try {
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = {x, y, z};
          std::fill_n(block.shared.begin(), shared_bytes, static_cast<unsigned char>(0xff));  // NaN
          run_block(name);
        }
      }
    }
  } catch (...) {
    block.running = false;
    throw;
  }
  block.running = false;
}

void* dynamic_shared() {
  const auto address = reinterpret_cast<uintptr_t>(block.shared.data());
  return block.shared.data() + (1024 - address % 1024) % 1024;
}

int lane() { return block.current % kWarp; }

void block_barrier() { wait(State::at_block); }

void warp_barrier(unsigned mask) {
  self().mask = mask;
  wait(State::at_warp);
}

const unsigned char* exchange(unsigned mask, const void* value, size_t bytes) {
  unsigned char* const words = block.words.data() + (self().turn++ % 2) * kMaxThreads * 64;
  unsigned char* const warp = words + (block.current / kWarp) * kWarp * 64;
  std::memcpy(warp + lane() * 64, value, bytes);
  warp_barrier(mask);
  return warp;
}

}  // namespace cuda_emulation
