# What llmz stands on, found among the system's packages (scripts/install_deps.sh is the one list of them).
include_guard()

include(FindPackageHandleStandardArgs)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(ZLIB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)

# Debian's dnnl-config.cmake insists on an OpenCL development package that nothing here uses, so oneDNN is found by hand.
find_path(DNNL_INCLUDE_DIR NAMES dnnl.hpp)
find_library(DNNL_LIBRARY NAMES dnnl)
find_package_handle_standard_args(dnnl REQUIRED_VARS DNNL_LIBRARY DNNL_INCLUDE_DIR)
if(NOT dnnl_FOUND)
  message(FATAL_ERROR "oneDNN not found: install libdnnl-dev (scripts/install_deps.sh does)")
endif()
add_library(DNNL::dnnl UNKNOWN IMPORTED)
set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
                                            INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})

find_package(PkgConfig REQUIRED)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)

if(LLMZ_TESTS)
  find_package(Catch2 REQUIRED)
  add_library(llmz_catch STATIC ${PROJECT_SOURCE_DIR}/tests/catch_main.cpp)
  target_link_libraries(llmz_catch PUBLIC Catch2::Catch2)
endif()

function(llmz_print_summary)
endfunction()
