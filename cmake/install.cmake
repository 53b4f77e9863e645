# What `make install` puts where: libraries, headers, the command, pkg-config and CMake package files.
include(CMakePackageConfigHelpers)

set(dibit_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dibit)
install(TARGETS dibit dibit_static EXPORT dibitTargets)
install(EXPORT dibitTargets NAMESPACE dibit:: DESTINATION ${dibit_package_dir})
install(DIRECTORY include/dibit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
if(TARGET dibit_cli)
  install(TARGETS dibit_cli)
endif()

configure_package_config_file(cmake/dibitConfig.cmake.in dibitConfig.cmake INSTALL_DESTINATION ${dibit_package_dir})
write_basic_package_version_file(dibitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/dibitConfig.cmake ${PROJECT_BINARY_DIR}/dibitConfigVersion.cmake
        DESTINATION ${dibit_package_dir})

# The prefix is told from the file's own place, so an installed tree can be moved.
file(RELATIVE_PATH up /x/${CMAKE_INSTALL_LIBDIR}/pkgconfig /x)
string(REGEX REPLACE "/$" "" dibit_pc_prefix "\${pcfiledir}/${up}")
configure_file(cmake/dibit.pc.in dibit.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/dibit.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
