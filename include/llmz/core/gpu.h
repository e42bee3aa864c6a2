#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>

struct CUevent_st;
struct CUstream_st;
struct cublasLtContext;
struct cusolverDnContext;

namespace llmz {

/// One NVIDIA GPU as this process uses it: a stream on which everything runs in order, the handles of NVIDIA's
/// libraries bound to it, and pinned host memory for transfers. Kernel launchers (kernels/cuda) and Memory are its
/// callers. Errors of the CUDA runtime become llmz::Error. A build without CUDA has this class too; its constructor
/// says what is missing.
class Gpu {
 public:
  /// `index` counts the devices that CUDA shows to this process. Throws Error naming what is wrong: no such device, no
  /// driver, a device older than Ampere (compute capability 8.0).
  explicit Gpu(int index);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  int index() const { return index_; }
  int multiprocessors() const { return multiprocessors_; }
  /// 10·major + minor: 90 for an H100.
  int compute_capability() const { return compute_capability_; }
  /// Most shared memory that one block may ask for, in bytes.
  size_t shared_memory_limit() const { return shared_memory_limit_; }

  CUstream_st* stream() const { return stream_; }
  cublasLtContext* blas();      ///< made at the first call
  cusolverDnContext* solver();  ///< likewise; bound to the stream

  /// Device memory, zero-filled. Throws Error with what was asked for and what is free.
  void* allocate(size_t bytes);
  void release(void* p) noexcept;

  /// Returns when the bytes are there. Waits for everything before it on the stream.
  void copy_to_host(void* to, const void* from, size_t bytes);
  /// Returns when `from` may be written again, which is before the stream gets to it; in order on the stream.
  void copy_to_device(void* to, const void* from, size_t bytes);
  void copy_on_device(void* to, const void* from, size_t bytes);  ///< in order on the stream
  void fill(void* p, int byte, size_t bytes);                     ///< likewise
  void synchronize();

  /// What a launcher calls after each launch: throws Error naming the kernel when it was refused, and with
  /// LLMZ_CUDA_SYNC=1 in the environment waits for it, so that a fault shows at the kernel that made it.
  void check_launch(const char* kernel);
  /// Whether LLMZ_CUDA_SYNC asks for that.
  bool synchronous() const { return synchronous_; }

  /// Whether products of f32 matrices may round their factors to TF32 (10 bits behind the point), which tensor cores
  /// take: several times as fast. Off at first.
  bool tf32() const { return tf32_; }
  void set_tf32(bool on) { tf32_ = on; }

  /// Cached choices of algorithms by shape (kernels/cuda/blas.cpp). Made and read by that file alone.
  std::shared_ptr<void>& matmul_choices() { return matmul_choices_; }

  /// Whose kernels compute attention in bf16. LLMZ_ATTENTION in the environment says it at first: `auto` (what holds
  /// without it) is cuDNN where the build has it and it takes the shape, llmz's own elsewhere; `cudnn` is the same with
  /// a warning at each shape that cuDNN does not take, and an error in a build without it; `own` is never cuDNN.
  enum class Attention { automatic, cudnn, own };
  Attention attention() const { return attention_; }
  void set_attention(Attention whose) { attention_ = whose; }

  /// cuDNN's handle and graphs by shape (kernels/cuda/attention_cudnn.cpp). Made and read by that file alone.
  std::shared_ptr<void>& attention_graphs() { return attention_graphs_; }

  /// Between these calls, work given to the stream is noted and not run. `end_capture` makes it a graph, which
  /// `launch` runs as often as wanted. Copies to and from the host are not possible meanwhile.
  void begin_capture();
  class Graph;
  std::unique_ptr<Graph> end_capture();
  void abandon_capture() noexcept;  ///< after an error meanwhile
  void launch(const Graph& graph);

 private:
  int index_ = 0, multiprocessors_ = 0, compute_capability_ = 0;
  size_t shared_memory_limit_ = 0;
  bool synchronous_ = false, tf32_ = false;
  Attention attention_ = Attention::automatic;
  CUstream_st* stream_ = nullptr;
  cublasLtContext* blas_ = nullptr;
  cusolverDnContext* solver_ = nullptr;
  // Pinned memory in slots: one may be filled while others are still on their way.
  static constexpr size_t kSlots = 8;
  std::byte* staging_ = nullptr;
  std::array<CUevent_st*, kSlots> sent_ = {};  ///< when what was put into a slot last has been copied
  size_t next_slot_ = 0;
  std::shared_ptr<void> matmul_choices_, attention_graphs_;
};

/// A captured sequence of launches.
class Gpu::Graph {
 public:
  explicit Graph(void* executable) : executable_(executable) {}
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void* executable() const { return executable_; }

 private:
  void* executable_;
};

}  // namespace llmz
