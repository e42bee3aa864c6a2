# What llmz cannot do without, found among the system's packages (scripts/install_deps.sh is the one list of them).
# All that is missing is collected and named in one error, with the package that brings each.
include_guard()
include(CheckCXXSourceCompiles)
include(LlmzSummary)

set(LLMZ_MISSING "")

# llmz_links(RESULT SOURCE target ...): whether SOURCE compiles, and links with the targets. A header or a library that
# is merely there proves nothing. Only success is remembered, so that a mended machine needs no fresh build folder.
function(llmz_links result source)
  set(CMAKE_REQUIRED_LIBRARIES ${ARGN})
  set(CMAKE_REQUIRED_QUIET ON)
  check_cxx_source_compiles("${source}" ${result})
  if(NOT ${result})
    unset(${result} CACHE)
    set(${result} OFF)
    message(STATUS "A small program does not link with ${ARGN}; why is in ${CMAKE_BINARY_DIR}/CMakeFiles, CMakeError.log "
                   "or CMakeConfigureLog.yaml")
  endif()
  set(${result} ${${result}} PARENT_SCOPE)
endfunction()

# llmz_header_version(RESULT PREFIX HEADER ...): "1.2.3" from `#define PREFIXMAJOR 1` and so on.
function(llmz_header_version result prefix)
  set(version "")
  foreach(header IN LISTS ARGN)
    if(EXISTS ${header} AND NOT version)
      foreach(part MAJOR MINOR PATCH)
        file(STRINGS ${header} line REGEX "#define ${prefix}${part} +[0-9]+")
        if(line MATCHES "([0-9]+)$")
          list(APPEND version ${CMAKE_MATCH_1})
        endif()
      endforeach()
    endif()
  endforeach()
  string(REPLACE ";" "." version "${version}")
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

# llmz_require(COMPONENT FOUND VERSION WHERE PACKAGE): a row of the table, or an entry in the list of what is missing.
function(llmz_require component found version where package)
  if(found)
    llmz_report("${component}" "on" "${version}" "${where}")
  else()
    list(APPEND LLMZ_MISSING "${component} (${package})")
    set(LLMZ_MISSING "${LLMZ_MISSING}" PARENT_SCOPE)
  endif()
endfunction()

find_package(Threads QUIET)
find_package(OpenMP QUIET COMPONENTS CXX)
set(openmp_package "part of g++")
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(openmp_package "libomp-dev")
endif()
llmz_require("OpenMP" "${OpenMP_CXX_FOUND}" "${OpenMP_CXX_VERSION}" "${OpenMP_CXX_FLAGS}" "${openmp_package}")

# llmz_find_by_hand(PREFIX TARGET HEADER EXPRESSION library ...): an imported TARGET, for what packages describe wrongly.
# Sets PREFIX_WORKS after linking a program that includes HEADER and returns EXPRESSION, and PREFIX_WHERE.
function(llmz_find_by_hand prefix target header expression)
  find_path(${prefix}_INCLUDE_DIR NAMES ${header})
  mark_as_advanced(${prefix}_INCLUDE_DIR)
  set(libraries "")
  foreach(name IN LISTS ARGN)
    find_library(${prefix}_${name}_LIBRARY NAMES ${name})
    mark_as_advanced(${prefix}_${name}_LIBRARY)
    list(APPEND libraries ${${prefix}_${name}_LIBRARY})
  endforeach()
  set(${prefix}_WORKS OFF PARENT_SCOPE)
  if(NOT ${prefix}_INCLUDE_DIR OR "${libraries}" MATCHES "NOTFOUND")
    return()
  endif()
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${target} SYSTEM INTERFACE ${${prefix}_INCLUDE_DIR})
  target_link_libraries(${target} INTERFACE ${libraries})
  llmz_links(${prefix}_WORKS "#include <${header}>\nint main() { return ${expression}; }" ${target})
  set(${prefix}_WORKS ${${prefix}_WORKS} PARENT_SCOPE)
  list(GET libraries 0 where)
  set(${prefix}_WHERE "${where}" PARENT_SCOPE)
endfunction()

# Debian's dnnl-config.cmake insists on an OpenCL development package that nothing here uses.
llmz_find_by_hand(DNNL DNNL::dnnl dnnl.hpp "dnnl::engine::get_count(dnnl::engine::kind::cpu) == 0" dnnl)
llmz_header_version(dnnl_version DNNL_VERSION_ ${DNNL_INCLUDE_DIR}/dnnl_version.h
                    ${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h)
llmz_require("oneDNN" "${DNNL_WORKS}" "${dnnl_version}" "${DNNL_WHERE}" "libdnnl-dev")

# Ubuntu 24.04's sentencepiece.pc insists on protobuf's development package, which only static linking needs.
llmz_find_by_hand(SentencePiece SentencePiece::SentencePiece sentencepiece_trainer.h
                  "sentencepiece::SentencePieceTrainer::Train(\"\").ok()"
                  sentencepiece sentencepiece_train)
llmz_require("SentencePiece" "${SentencePiece_WORKS}" "-" "${SentencePiece_WHERE}" "libsentencepiece-dev")

find_package(Eigen3 QUIET NO_MODULE)
llmz_require("Eigen" "${Eigen3_FOUND}" "${Eigen3_VERSION}" "${Eigen3_DIR}" "libeigen3-dev")
find_package(nlohmann_json QUIET)
llmz_require("nlohmann-json" "${nlohmann_json_FOUND}" "${nlohmann_json_VERSION}" "${nlohmann_json_DIR}" "nlohmann-json3-dev")
find_package(CLI11 QUIET)
llmz_require("CLI11" "${CLI11_FOUND}" "${CLI11_VERSION}" "${CLI11_DIR}" "libcli11-dev")
find_package(spdlog QUIET)
llmz_require("spdlog" "${spdlog_FOUND}" "${spdlog_VERSION}" "${spdlog_DIR}" "libspdlog-dev")
find_package(ZLIB QUIET)
llmz_require("zlib" "${ZLIB_FOUND}" "${ZLIB_VERSION_STRING}" "${ZLIB_LIBRARIES}" "zlib1g-dev")

find_package(PkgConfig QUIET)
llmz_require("pkg-config" "${PkgConfig_FOUND}" "${PKG_CONFIG_VERSION_STRING}" "${PKG_CONFIG_EXECUTABLE}" "pkg-config")
if(PkgConfig_FOUND)
  pkg_check_modules(pcre2 QUIET IMPORTED_TARGET libpcre2-8)
  pkg_check_modules(zstd QUIET IMPORTED_TARGET libzstd)
endif()
llmz_require("PCRE2" "${pcre2_FOUND}" "${pcre2_VERSION}" "${pcre2_LINK_LIBRARIES}" "libpcre2-dev")
llmz_require("zstd" "${zstd_FOUND}" "${zstd_VERSION}" "${zstd_LINK_LIBRARIES}" "libzstd-dev")

if(LLMZ_TESTS)
  find_package(Catch2 QUIET)
  llmz_require("Catch2" "${Catch2_FOUND}" "${Catch2_VERSION}" "${Catch2_DIR}" "catch2")
endif()

if(LLMZ_MISSING)
  list(JOIN LLMZ_MISSING "\n    " missing_lines)
  message(FATAL_ERROR "llmz needs these, which this machine lacks (package in brackets; scripts/install_deps.sh installs "
                      "all of them):\n    ${missing_lines}")
endif()

if(LLMZ_TESTS)
  add_library(llmz_catch STATIC ${PROJECT_SOURCE_DIR}/tests/catch_main.cpp)
  target_compile_options(llmz_catch PRIVATE -O0)  # a test runner: optimising it takes longer than running it
  target_link_libraries(llmz_catch PUBLIC Catch2::Catch2)
endif()
