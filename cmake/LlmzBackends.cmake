# The parts that a machine may lack: CUDA, cuDNN, NCCL and MPI, each AUTO (use it if it works), ON (an error if it does
# not) or OFF. Sets LLMZ_HAVE_CUDA, LLMZ_HAVE_CUDNN, LLMZ_HAVE_NCCL and LLMZ_HAVE_MPI. What decides is a small program that links.
include_guard()
include(LlmzDependencies)

# llmz_settle(NAME WORKS VERSION WHY MEND): the row of the table; with NAME=ON and not working, the error.
function(llmz_settle name works version why mend)
  if(works)
    llmz_report("${name}" "on" "${version}" "${why}")
  elseif(LLMZ_${name} STREQUAL "ON")
    message(FATAL_ERROR "LLMZ_${name}=ON, but ${why}.\n${mend}, or configure with -DLLMZ_${name}=AUTO or OFF.")
  else()
    llmz_report("${name}" "off" "-" "${why}")
  endif()
  set(LLMZ_HAVE_${name} ${works} PARENT_SCOPE)
endfunction()

# --- CUDA: the toolkit, then nvcc making a whole program, then CMake's own language support -----------------------

# Looks for the toolkit, and lets nvcc compile and link a kernel for the architectures that will be used. Sets
# cuda_works and cuda_why, and CMAKE_CUDA_ARCHITECTURES where the user has not.
macro(llmz_try_cuda)
  if(NOT CUDAToolkit_ROOT AND DEFINED ENV{CUDA_HOME})
    set(CUDAToolkit_ROOT $ENV{CUDA_HOME})
  endif()
  find_package(CUDAToolkit QUIET)
  if(NOT CUDAToolkit_FOUND)
    set(cuda_why "no CUDA toolkit was found (looked for nvcc on the PATH, in CUDA_HOME and in /usr/local/cuda)")
  elseif(CUDAToolkit_VERSION VERSION_LESS 12.0)
    set(cuda_why "the CUDA toolkit in ${CUDAToolkit_BIN_DIR} is ${CUDAToolkit_VERSION}, and 12.0 is the oldest that takes C++20")
  elseif(NOT CUDAToolkit_NVCC_EXECUTABLE)
    set(cuda_why "the CUDA toolkit in ${CUDAToolkit_LIBRARY_DIR} has no nvcc")
  else()
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      llmz_cuda_architectures(CMAKE_CUDA_ARCHITECTURES)
    endif()
    if(NOT CMAKE_CUDA_HOST_COMPILER)
      set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
    endif()
    llmz_nvcc_links(cuda_works cuda_why)
  endif()
endmacro()

# Ampere, Hopper, and Blackwell in its two kinds, as far as this toolkit knows them. Machine code runs on later cards
# of its generation too, and any newer generation starts from the PTX that goes along.
function(llmz_cuda_architectures result)
  execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
  set(chosen "")
  foreach(arch 80 90 100 120)
    if(known MATCHES "sm_${arch}[^0-9]")
      list(APPEND chosen ${arch})
    endif()
  endforeach()
  if(NOT chosen)
    set(chosen 80 90)
  endif()
  set(${result} "${chosen}" PARENT_SCOPE)
endfunction()

function(llmz_nvcc_links works why)
  set(folder ${CMAKE_BINARY_DIR}/CMakeFiles/llmz_nvcc_check)
  file(MAKE_DIRECTORY ${folder})
  file(CONFIGURE OUTPUT ${folder}/check.cu CONTENT [[
__global__ void fill(int* out) { *out = 1; }
int main() {
  fill<<<1, 1>>>(nullptr);
  return cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}
]])
  list(GET CMAKE_CUDA_ARCHITECTURES 0 arch)
  string(REGEX MATCH "^[0-9]+" arch "${arch}")
  set(arch_flag "")
  if(arch)
    set(arch_flag -arch=sm_${arch})
  endif()
  set(command ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++20 ${arch_flag} -ccbin ${CMAKE_CUDA_HOST_COMPILER} check.cu -o check)
  set(key "${command}")
  if(EXISTS ${folder}/check AND "${LLMZ_NVCC_CHECKED}" STREQUAL "${key}")
    set(status 0)
  else()
    execute_process(COMMAND ${command} WORKING_DIRECTORY ${folder} RESULT_VARIABLE status OUTPUT_VARIABLE output
                    ERROR_VARIABLE output)
  endif()
  if(status EQUAL 0)
    set(LLMZ_NVCC_CHECKED "${key}" CACHE INTERNAL "The nvcc command that linked a test program")
    set(${works} ON PARENT_SCOPE)
    return()
  endif()
  file(WRITE ${folder}/check.log "${command}\n${output}")
  string(REGEX MATCH "[^\n]*(error|fatal|unsupported|cannot)[^\n]*" line "${output}")
  set(${why} "${CUDAToolkit_NVCC_EXECUTABLE} cannot build a small program: ${line} (all of it in ${folder}/check.log)" PARENT_SCOPE)
endfunction()

set(cuda_works OFF)
set(cuda_why "switched off by LLMZ_CUDA=OFF")
if(LLMZ_CUDA STREQUAL "EMULATED")
  set(cuda_works ON)
  set(cuda_why "emulated on the CPU, for tests (tests/cuda_emulation/README.md)")
elseif(NOT LLMZ_CUDA STREQUAL "OFF")
  llmz_try_cuda()
  if(cuda_works)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(cuda_flags --expt-relaxed-constexpr -Xfatbin=--compress-all -Xcompiler=-Wno-attributes)
    if(LLMZ_WERROR)  # a kernel that spills registers does not compile
      list(APPEND cuda_flags -Xptxas=--warn-on-spills,--warning-as-error)
    endif()
    # Compressed, the machine code of four generations takes a tenth of the space. For profilers and compute-sanitizer to
    # name source lines, configure with CUDAFLAGS=-lineinfo.
    target_compile_options(llmz_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")
    string(REPLACE ";" ", " cuda_arch_list "${CMAKE_CUDA_ARCHITECTURES}")
    set(cuda_why "${CMAKE_CUDA_COMPILER}, architectures ${cuda_arch_list}")
  endif()
endif()
# What the CUDA backend links. The runtime statically where that is there; the others are too large.
set(LLMZ_CUDA_LIBRARIES "")
if(cuda_works AND NOT LLMZ_CUDA STREQUAL "EMULATED")
  set(LLMZ_CUDA_LIBRARIES CUDA::cudart)
  if(TARGET CUDA::cudart_static)
    set(LLMZ_CUDA_LIBRARIES CUDA::cudart_static)
  endif()
  list(APPEND LLMZ_CUDA_LIBRARIES CUDA::cublasLt CUDA::cusolver)
  foreach(library CUDA::cublasLt CUDA::cusolver)
    if(NOT TARGET ${library})
      set(cuda_works OFF)
      set(cuda_why "the CUDA toolkit in ${CUDAToolkit_LIBRARY_DIR} lacks ${library}")
    endif()
  endforeach()
endif()
llmz_settle(CUDA "${cuda_works}" "${CUDAToolkit_VERSION}" "${cuda_why}"
            "Install NVIDIA's CUDA toolkit 12 or newer and put nvcc on the PATH (or set CUDA_HOME)")

# --- cuDNN: its library, and the headers of cudnn-frontend, which build its graphs -----------------------------------

# Sets cudnn_works, cudnn_version and cudnn_why, and makes the target CUDNN::frontend.
macro(llmz_try_cudnn)
  find_path(CUDNN_INCLUDE_DIR NAMES cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(CUDNN_LIBRARY NAMES cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
  find_path(CUDNN_FRONTEND_INCLUDE_DIR NAMES cudnn_frontend.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CUDNN_INCLUDE_DIR})
  mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_LIBRARY CUDNN_FRONTEND_INCLUDE_DIR)
  if(CUDNN_INCLUDE_DIR)
    llmz_cudnn_version(cudnn_version CUDNN_ PATCHLEVEL ${CUDNN_INCLUDE_DIR}/cudnn_version.h)
  endif()
  if(NOT CUDNN_INCLUDE_DIR)
    set(cudnn_why "cudnn.h was not found")
  elseif(NOT CUDNN_LIBRARY)
    set(cudnn_why "cudnn.h is in ${CUDNN_INCLUDE_DIR}, but libcudnn.so was not found")
  elseif(cudnn_version AND cudnn_version VERSION_LESS 9.0)
    set(cudnn_why "cuDNN in ${CUDNN_INCLUDE_DIR} is ${cudnn_version}, and 9 is the oldest that will do")
  elseif(NOT CUDNN_FRONTEND_INCLUDE_DIR)
    set(cudnn_why "cuDNN ${cudnn_version} is there, but cudnn_frontend.h was not found (CUDNN_FRONTEND_INCLUDE_DIR names its folder)")
  else()
    llmz_cudnn_version(frontend_version CUDNN_FRONTEND_ PATCH_VERSION
                       ${CUDNN_FRONTEND_INCLUDE_DIR}/cudnn_frontend_version.h)
    add_library(CUDNN::frontend INTERFACE IMPORTED GLOBAL)
    target_include_directories(CUDNN::frontend SYSTEM INTERFACE ${CUDNN_FRONTEND_INCLUDE_DIR} ${CUDNN_INCLUDE_DIR}
                                                                ${CUDAToolkit_INCLUDE_DIRS})
    target_compile_definitions(CUDNN::frontend INTERFACE CUDNN_FRONTEND_SKIP_JSON_LIB)  # it brings a copy of its own
    target_link_libraries(CUDNN::frontend INTERFACE ${CUDNN_LIBRARY} ${LLMZ_CUDA_LIBRARIES})
    if(TARGET CUDA::nvrtc)  # newer frontends call it
      target_link_libraries(CUDNN::frontend INTERFACE CUDA::nvrtc)
    endif()
    # The youngest of the calls that kernels/cuda/attention_cudnn.cpp makes.
    llmz_links(LLMZ_LINKS_CUDNN [[
#include <cudnn_frontend.h>
namespace fe = cudnn_frontend;
int main() {
  cudnnHandle_t handle = nullptr;
  fe::graph::Graph graph;
  fe::graph::SDPA_attributes forward;
  fe::graph::SDPA_backward_attributes backward;
  forward.set_generate_stats(true).set_causal_mask_bottom_right(true);
  backward.set_deterministic_algorithm(true).set_causal_mask_bottom_right(true);
  return cudnnCreate(&handle) != CUDNN_STATUS_SUCCESS || graph.build(handle, {fe::HeurMode_t::A}).is_bad();
}]] CUDNN::frontend)
    set(cudnn_works ${LLMZ_LINKS_CUDNN})
    set(cudnn_why "${CUDNN_LIBRARY}, cudnn-frontend ${frontend_version} in ${CUDNN_FRONTEND_INCLUDE_DIR}")
    if(NOT cudnn_works)
      set(cudnn_why "cudnn-frontend ${frontend_version} is in ${CUDNN_FRONTEND_INCLUDE_DIR}, but a small program with it does not link with ${CUDNN_LIBRARY} (versions from 1.14 do)")
    endif()
  endif()
endmacro()

# As llmz_header_version, where the third part has a name of its own and the others may end in _VERSION like it.
function(llmz_cudnn_version result prefix third header)
  set(version "")
  set(end "")
  if(third MATCHES "(_VERSION)$")
    set(end "_VERSION")
  endif()
  foreach(part MAJOR${end} MINOR${end} ${third})
    set(line "")
    if(EXISTS ${header})
      file(STRINGS ${header} line REGEX "#define ${prefix}${part} +[0-9]+")
    endif()
    if(line MATCHES "([0-9]+)$")
      list(APPEND version ${CMAKE_MATCH_1})
    endif()
  endforeach()
  string(REPLACE ";" "." version "${version}")
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

set(cudnn_works OFF)
set(cudnn_version "")
set(cudnn_why "switched off by LLMZ_CUDNN=OFF")
if(NOT LLMZ_CUDNN STREQUAL "OFF")
  if(NOT LLMZ_HAVE_CUDA OR LLMZ_CUDA STREQUAL "EMULATED")
    set(cudnn_why "it needs CUDA, which is off or emulated")
  else()
    llmz_try_cudnn()
  endif()
endif()
llmz_settle(CUDNN "${cudnn_works}" "${cudnn_version}" "${cudnn_why}"
            "Install cuDNN 9's development package and NVIDIA's cudnn-frontend headers, with LLMZ_CUDA on")

# --- NCCL -----------------------------------------------------------------------------------------------------------

set(nccl_works OFF)
set(nccl_version "")
set(nccl_why "switched off by LLMZ_NCCL=OFF")
if(NOT LLMZ_NCCL STREQUAL "OFF")
  if(LLMZ_CUDA STREQUAL "EMULATED")
    add_library(NCCL::nccl INTERFACE IMPORTED)
    target_link_libraries(NCCL::nccl INTERFACE llmz_cuda_emulation)
    set(nccl_works ON)
    set(nccl_why "emulated, between processes of one machine (tests/cuda_emulation/README.md)")
  elseif(NOT LLMZ_HAVE_CUDA)
    set(nccl_why "it needs CUDA, which is off")
  else()
    find_path(NCCL_INCLUDE_DIR NAMES nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(NCCL_LIBRARY NAMES nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
    mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
    if(NOT NCCL_INCLUDE_DIR)
      set(nccl_why "nccl.h was not found")
    elseif(NOT NCCL_LIBRARY)
      set(nccl_why "nccl.h is in ${NCCL_INCLUDE_DIR}, but libnccl.so was not found")
    else()
      add_library(NCCL::nccl UNKNOWN IMPORTED)
      set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
                                                  INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR}
                                                  INTERFACE_LINK_LIBRARIES CUDA::cudart)
      llmz_header_version(nccl_version NCCL_ ${NCCL_INCLUDE_DIR}/nccl.h)
      llmz_links(LLMZ_LINKS_NCCL "#include <nccl.h>\nint main() { int v = 0; return ncclGetVersion(&v) != ncclSuccess; }"
                 NCCL::nccl)
      set(nccl_works ${LLMZ_LINKS_NCCL})
      set(nccl_why "${NCCL_LIBRARY}")
      if(NOT nccl_works)
        set(nccl_why "nccl.h is in ${NCCL_INCLUDE_DIR}, but a small program does not link with ${NCCL_LIBRARY}")
      endif()
    endif()
  endif()
endif()
llmz_settle(NCCL "${nccl_works}" "${nccl_version}" "${nccl_why}"
            "Install NCCL's development package (libnccl-dev from NVIDIA's repository), with LLMZ_CUDA on")

# --- MPI ------------------------------------------------------------------------------------------------------------

set(mpi_works OFF)
set(mpi_why "switched off by LLMZ_MPI=OFF")
if(NOT LLMZ_MPI STREQUAL "OFF")
  set(MPI_CXX_SKIP_MPICXX ON)  # the C interface only: the C++ one is gone from the standard
  find_package(MPI QUIET COMPONENTS CXX)
  if(NOT MPI_CXX_FOUND)
    set(mpi_why "no working MPI was found (mpicxx is what is looked for)")
  else()
    llmz_links(LLMZ_LINKS_MPI "#include <mpi.h>\nint main(int argc, char** argv) { return MPI_Init(&argc, &argv); }"
               MPI::MPI_CXX)
    set(mpi_works ${LLMZ_LINKS_MPI})
    list(GET MPI_CXX_LIBRARIES 0 mpi_library)
    set(mpi_why "${mpi_library}")
    if(NOT mpi_works)
      set(mpi_why "${mpi_library} was found, but a small program does not link with it")
    endif()
  endif()
endif()
llmz_settle(MPI "${mpi_works}" "MPI ${MPI_CXX_VERSION}" "${mpi_why}"
            "Install libopenmpi-dev and openmpi-bin (scripts/install_deps.sh does)")
