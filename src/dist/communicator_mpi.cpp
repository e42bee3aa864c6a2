#include "src/dist/communicator_mpi.h"

#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "llmz/core/dtype.h"

namespace llmz::dist {
namespace {

/// Below it a tensor joins others of its type in one message: latency, not bandwidth, is what it would cost.
constexpr size_t kSmall = size_t{64} << 10;
/// MPI counts elements in an int.
constexpr int64_t kMostElements = int64_t{1} << 30;

void sum_bf16(void* in, void* inout, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const bf16*>(in);
  auto* b = static_cast<bf16*>(inout);
  for (int i = 0; i < *count; ++i) b[i] = bf16(static_cast<float>(a[i]) + static_cast<float>(b[i]));
}

int count_of(int64_t elements) {
  check(elements <= std::numeric_limits<int>::max(), "a message of {} elements is more than MPI counts", elements);
  return static_cast<int>(elements);
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiThread> thread, int rank, int size)
      : Communicator(rank, size), thread_(std::move(thread)) {
    thread_->run([this] {
      must_mpi(MPI_Type_contiguous(sizeof(bf16), MPI_BYTE, &bf16_), "MPI_Type_contiguous");
      must_mpi(MPI_Type_commit(&bf16_), "MPI_Type_commit");
      must_mpi(MPI_Op_create(sum_bf16, /*commute=*/1, &bf16_sum_), "MPI_Op_create");
    });
  }
  /// Whoever destroys it has finished what was started.
  ~MpiCommunicator() override {
    thread_->post([op = bf16_sum_, type = bf16_]() mutable {
      MPI_Op_free(&op);
      MPI_Type_free(&type);
    });
  }
  std::string_view name() const override { return "MPI"; }

 private:
  void do_start(std::span<const Reduction> bucket) override {
    thread_->post([this, all = std::vector<Reduction>(bucket.begin(), bucket.end())] { reduce(all); });
  }
  void do_finish() override { thread_->drain(); }

  void do_all_gather_rows(std::span<const Tensor> tensors) override {
    thread_->run([&] {
      for (const Tensor& t : tensors) {
        const int count = count_of(t.numel() / size());
        must_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, t.data, count, type_of(t.dtype), MPI_COMM_WORLD),
                 "MPI_Allgather");
      }
    });
  }

  void do_broadcast(std::span<const Tensor> tensors, int root) override {
    thread_->run([&] {
      for (const Tensor& t : tensors) {
        must_mpi(MPI_Bcast(t.data, count_of(t.numel()), type_of(t.dtype), root, MPI_COMM_WORLD), "MPI_Bcast");
      }
    });
  }

  // Below: on the MPI thread.

  MPI_Datatype type_of(DType dtype) const {
    switch (dtype) {
      case DType::f32: return MPI_FLOAT;
      case DType::f64: return MPI_DOUBLE;
      case DType::bf16: return bf16_;
      case DType::i32: return MPI_INT32_T;
      case DType::u8: return MPI_UINT8_T;
      default: fail("tensors of type {} are not sent through MPI", dtype_name(dtype));
    }
  }
  MPI_Op sum_of(DType dtype) const { return dtype == DType::bf16 ? bf16_sum_ : MPI_SUM; }

  void reduce(const std::vector<Reduction>& bucket) {
    std::vector<Tensor> small;
    for (const Reduction& r : bucket) {
      if (r.by_rows) {
        reduce_scatter(r.tensor);
      } else if (r.tensor.bytes() < kSmall) {
        small.push_back(r.tensor);
      } else {
        all_reduce(r.tensor.data, r.tensor.numel(), r.tensor.dtype);
      }
    }
    while (!small.empty()) {
      const DType dtype = small.front().dtype;
      const auto others = std::stable_partition(small.begin(), small.end(), [&](auto& t) { return t.dtype == dtype; });
      reduce_together({small.begin(), others});
      small.erase(small.begin(), others);
    }
  }

  void all_reduce(void* data, int64_t elements, DType dtype) {
    for (int64_t first = 0; first < elements; first += kMostElements) {
      auto* const at = static_cast<std::byte*>(data) + static_cast<size_t>(first) * dtype_bytes(dtype);
      must_mpi(MPI_Allreduce(MPI_IN_PLACE, at, count_of(std::min(kMostElements, elements - first)), type_of(dtype),
                             sum_of(dtype), MPI_COMM_WORLD),
               "MPI_Allreduce");
    }
  }

  /// MPI leaves this rank's rows where the tensor begins.
  void reduce_scatter(const Tensor& t) {
    const int64_t part = t.numel() / size();
    must_mpi(MPI_Reduce_scatter_block(MPI_IN_PLACE, t.data, count_of(part), type_of(t.dtype), sum_of(t.dtype),
                                      MPI_COMM_WORLD),
             "MPI_Reduce_scatter_block");
    const size_t bytes = static_cast<size_t>(part) * dtype_bytes(t.dtype);
    auto* const data = static_cast<std::byte*>(t.data);
    std::memmove(data + bytes * static_cast<size_t>(rank()), data, bytes);
  }

  void reduce_together(std::span<const Tensor> tensors) {
    packed_.clear();
    int64_t elements = 0;
    for (const Tensor& t : tensors) {
      const auto* const data = static_cast<const std::byte*>(t.data);
      packed_.insert(packed_.end(), data, data + t.bytes());
      elements += t.numel();
    }
    all_reduce(packed_.data(), elements, tensors.front().dtype);
    size_t at = 0;
    for (const Tensor& t : tensors) {
      std::memcpy(t.data, packed_.data() + at, t.bytes());
      at += t.bytes();
    }
  }

  std::shared_ptr<MpiThread> thread_;
  MPI_Datatype bf16_ = MPI_DATATYPE_NULL;
  MPI_Op bf16_sum_ = MPI_OP_NULL;
  std::vector<std::byte> packed_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(std::shared_ptr<MpiThread> thread, int rank, int size) {
  return std::make_unique<MpiCommunicator>(std::move(thread), rank, size);
}

}  // namespace llmz::dist
