# `cmake --install`: the program, its documents and the configurations to begin with. Paths are relative to the prefix, so
# that DESTDIR and CPack can put them anywhere; the program itself looks for none of them.
include(GNUInstallDirs)

function(llmz_install)
  install(TARGETS llmz RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES README.md CHANGELOG.md CONTRIBUTING.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
  install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
  install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/llmz FILES_MATCHING PATTERN "*.json")
endfunction()
