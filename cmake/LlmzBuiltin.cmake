# The files of configs/ inside the program, so that it knows their names wherever it runs. Included by src/core it
# defines llmz_builtin_source; run by `cmake -P` when one of the files changed it writes them into a source as texts.
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.24)
  # llmz_rows(RESULT FOLDER): {"llama-60m", R"json(...)json"}, for every file, in the order of their names.
  function(llmz_rows result folder)
    file(GLOB files ${folder}/*.json)
    list(SORT files COMPARE NATURAL)
    set(rows "")
    foreach(file IN LISTS files)
      get_filename_component(name ${file} NAME_WLE)
      file(READ ${file} text)
      string(APPEND rows "\n      {\"${name}\", R\"json(${text})json\"},")
    endforeach()
    set(${result} "${rows}" PARENT_SCOPE)
  endfunction()
  llmz_rows(LLMZ_MODELS ${CONFIGS}/models)
  llmz_rows(LLMZ_CONFIGS ${CONFIGS})
  configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
  return()
endif()

# llmz_builtin_source(TARGET): adds the generated source to TARGET.
function(llmz_builtin_source target)
  set(output ${CMAKE_BINARY_DIR}/generated/builtin.cpp)
  set(template ${PROJECT_SOURCE_DIR}/src/core/builtin.cpp.in)
  set(script ${PROJECT_SOURCE_DIR}/cmake/LlmzBuiltin.cmake)
  set(configs ${PROJECT_SOURCE_DIR}/configs)
  file(GLOB files CONFIGURE_DEPENDS ${configs}/*.json ${configs}/models/*.json)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DCONFIGS=${configs} -DTEMPLATE=${template} -DOUTPUT=${output} -P ${script}
    DEPENDS ${files} ${template} ${script}
    COMMENT "Taking in configs/"
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
