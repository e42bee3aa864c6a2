# The version and git revision that the program prints. Included by CMakeLists.txt it defines llmz_version_source; run
# by `cmake -P` at every build it writes that source, and only touches it when the revision changed: a commit costs
# one compilation and the links, not a rebuild.
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.24)
  set(revision "")
  execute_process(COMMAND git -C ${SOURCE_DIR} rev-parse --show-toplevel OUTPUT_VARIABLE top ERROR_QUIET
                  OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE status)
  # An unpacked tarball inside somebody's repository must not take that repository's revision for its own.
  file(REAL_PATH ${SOURCE_DIR} source_dir)
  if(status EQUAL 0 AND "${top}" STREQUAL "${source_dir}")
    execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --exclude=* OUTPUT_VARIABLE revision
                    ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  if(NOT revision)
    set(revision "unknown")
  endif()
  set(LLMZ_REVISION "${revision}")
  # Rows of llmz_report as C++: {"name", true, "version", "detail"},
  set(LLMZ_COMPONENTS "")
  foreach(row IN LISTS COMPONENT_ROWS)
    string(REGEX REPLACE "([\"\\\\])" "\\\\\\1" row "${row}")
    string(REPLACE "|" ";" cells "${row}")
    list(GET cells 0 name)
    list(GET cells 1 state)
    list(GET cells 2 version)
    list(GET cells 3 detail)
    set(enabled false)
    if(state STREQUAL "on")
      set(enabled true)
    endif()
    string(APPEND LLMZ_COMPONENTS "\n              {\"${name}\", ${enabled}, \"${version}\", \"${detail}\"},")
  endforeach()
  configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
  return()
endif()

# llmz_version_source(TARGET): adds the generated source to TARGET. What is reported before the call goes in.
function(llmz_version_source target)
  set(output ${CMAKE_BINARY_DIR}/generated/version.cpp)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
  string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}} ${LLMZ_FLAGS}" flags)
  get_property(rows GLOBAL PROPERTY LLMZ_SUMMARY_ROWS)
  add_custom_target(llmz_version
    COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DTEMPLATE=${PROJECT_SOURCE_DIR}/src/core/version.cpp.in
            -DOUTPUT=${output} -DLLMZ_VERSION=${PROJECT_VERSION}
            "-DLLMZ_COMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
            -DLLMZ_BUILD_TYPE=${CMAKE_BUILD_TYPE} "-DLLMZ_FLAGS=${flags}" "-DCOMPONENT_ROWS=${rows}"
            -P ${PROJECT_SOURCE_DIR}/cmake/LlmzVersion.cmake
    BYPRODUCTS ${output}
    COMMENT "Looking up the git revision"
    VERBATIM)
  set_source_files_properties(${output} PROPERTIES GENERATED TRUE)
  target_sources(${target} PRIVATE ${output})
  add_dependencies(${target} llmz_version)
endfunction()
