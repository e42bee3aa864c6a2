#include "llmz/core/error.h"
#include "llmz/core/gpu.h"
#include "llmz/core/system.h"

// A build without CUDA: no Gpu can be made, so that nothing else of it is ever called.

namespace llmz {

Gpu::Gpu(int) { fail("a GPU is asked for, but {}", cuda_info().reason); }
Gpu::~Gpu() = default;
cublasLtContext* Gpu::blas() { return nullptr; }
cusolverDnContext* Gpu::solver() { return nullptr; }
void* Gpu::allocate(size_t) { return nullptr; }
void Gpu::release(void*) noexcept {}
void Gpu::copy_to_host(void*, const void*, size_t) {}
void Gpu::copy_to_device(void*, const void*, size_t) {}
void Gpu::copy_on_device(void*, const void*, size_t) {}
void Gpu::fill(void*, int, size_t) {}
void Gpu::synchronize() {}
void Gpu::check_launch(const char*) {}
void Gpu::begin_capture() {}
std::unique_ptr<Gpu::Graph> Gpu::end_capture() { return nullptr; }
void Gpu::abandon_capture() noexcept {}
void Gpu::launch(const Graph&) {}
Gpu::Graph::~Graph() = default;

}  // namespace llmz
