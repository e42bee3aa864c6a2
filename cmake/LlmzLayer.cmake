# llmz_unit(TARGET): its sources are compiled a few at a time, each group as one unit, which takes a third of the time where
# they read the same large headers (JSON, the command line). File-local names of such a folder must differ from file to file.
function(llmz_unit target)
  if(LLMZ_UNITS)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
  endif()
endfunction()

# llmz_cold(TARGET): it has no loop worth optimising, only large headers: -O1 in a release, which compiles faster.
function(llmz_cold target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# llmz_layer(NAME [UNIT] [COLD] SOURCES ... USES layer ... LIBS target ...)
# One static library a layer; UNIT, COLD: compiled as llmz_unit and llmz_cold say. A layer sees its own headers and those of the layers it USES, through a folder of links
# in the build tree that holds nothing else: an include that goes up a layer does not compile.
function(llmz_layer name)
  cmake_parse_arguments(ARG "UNIT;COLD" "" "SOURCES;USES;LIBS" ${ARGN})
  set(root ${CMAKE_BINARY_DIR}/layer_headers/${name})
  file(MAKE_DIRECTORY ${root}/llmz)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/include/llmz/${name} ${root}/llmz/${name} SYMBOLIC)

  # Its own private headers, as "src/<layer>/x.h", the same way; the kernels belong to ops.
  set(private ${CMAKE_BINARY_DIR}/layer_sources/${name})
  file(MAKE_DIRECTORY ${private}/src)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/src/${name} ${private}/src/${name} SYMBOLIC)
  if(name STREQUAL ops)
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/kernels ${private}/kernels SYMBOLIC)
  endif()

  add_library(llmz_${name} STATIC ${ARG_SOURCES})
  target_include_directories(llmz_${name} PUBLIC ${root} PRIVATE ${private})
  set(uses ${ARG_USES})
  list(TRANSFORM uses PREPEND llmz_)
  target_link_libraries(llmz_${name} PUBLIC ${uses} ${ARG_LIBS} PRIVATE llmz_flags)
  if(ARG_UNIT)
    llmz_unit(llmz_${name})
  endif()
  if(ARG_COLD)
    llmz_cold(llmz_${name})
  endif()
endfunction()

# llmz_test(NAME [LONG] [PROCESSORS n] SOURCES ... USES layer ... [MAIN file]): one Catch2 program, registered with ctest under
# its name. LONG: it starts processes or trains, and a developer's loop (ctest -L short) leaves it out. PROCESSORS: how many it
# keeps busy (1 if not said), so that `ctest -j` runs beside it only what there is room for. MAIN is instead of Catch's own main.
function(llmz_test name)
  cmake_parse_arguments(ARG "LONG" "MAIN;PROCESSORS" "SOURCES;USES;LIBS" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES} ${ARG_MAIN})
  set(catch llmz_catch)
  if(ARG_MAIN)
    set(catch Catch2::Catch2)
  endif()
  set(uses ${ARG_USES})
  list(TRANSFORM uses PREPEND llmz_)
  target_include_directories(test_${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(test_${name} PRIVATE ${uses} ${ARG_LIBS} ${catch} llmz_flags)
  target_compile_definitions(test_${name} PRIVATE LLMZ_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  add_test(NAME ${name} COMMAND test_${name})
  set(label short)
  if(ARG_LONG)
    set(label long)
  endif()
  if(NOT ARG_PROCESSORS)
    set(ARG_PROCESSORS 1)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT 900 LABELS ${label} PROCESSORS ${ARG_PROCESSORS}
                       ENVIRONMENT "OMP_NUM_THREADS=2;OMP_WAIT_POLICY=passive")  # waiting threads leave a busy machine to others
endfunction()
