# SPDX-License-Identifier: Apache-2.0
# find_package(pion CONFIG), pkg-config pion: the component "pion" of cmake --install.
include(CMakePackageConfigHelpers)
set(pion_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pion)

# Two export sets: who asks for the component optim alone is not asked for LibTorch.
function(pion_install export)
  install(
    TARGETS ${ARGN} EXPORT ${export}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT pion
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT pion NAMELINK_COMPONENT pion)
  install(EXPORT ${export} NAMESPACE pion:: DESTINATION ${pion_cmake_dir} COMPONENT pion)
endfunction()

set_target_properties(${pion_optim_target} PROPERTIES EXPORT_NAME optim)
if(PION_SHARED)
  pion_install(pionOptimTargets pion_optim_shared)
else()
  set_target_properties(pion_kernels PROPERTIES EXPORT_NAME kernels)
  set_target_properties(pion_spectral PROPERTIES EXPORT_NAME spectral)
  pion_install(pionOptimTargets pion_kernels pion_spectral pion_optim)
endif()
set(pion_components optim)
set(pion_headers_left_out PATTERN "torch" EXCLUDE)
if(PION_TORCH)
  list(APPEND pion_components torch)
  set_target_properties(${pion_torch_target} PROPERTIES EXPORT_NAME pion)
  # a shared one finds pion_optim beside it, LibTorch where the build found it
  set_target_properties(${pion_torch_target} PROPERTIES INSTALL_RPATH
                                                        "$ORIGIN;${TORCH_INSTALL_PREFIX}/lib")
  pion_install(pionTorchTargets ${pion_torch_target})
  set(pion_headers_left_out)
  string(REGEX MATCH "^([0-9]+)\\.([0-9]+)" pion_torch_minor ${Torch_VERSION})
  configure_file(${PROJECT_SOURCE_DIR}/cmake/torch_version.h.in
                 ${PROJECT_BINARY_DIR}/installed/torch_version.h @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/installed/torch_version.h
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/pion/torch COMPONENT pion)
endif()
install(
  DIRECTORY ${PROJECT_SOURCE_DIR}/pion
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT pion
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "loaded_tiles.h" EXCLUDE # tests' own
  PATTERN "routing_zoo.h" EXCLUDE
  PATTERN "*_test.h" EXCLUDE
  PATTERN "json_parser.h" EXCLUDE # needs nlohmann-json
  PATTERN "toml_parser.h" EXCLUDE # needs toml++
          ${pion_headers_left_out})

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/pionConfig.cmake.in ${PROJECT_BINARY_DIR}/pionConfig.cmake
  INSTALL_DESTINATION ${pion_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pionConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pionConfig.cmake ${PROJECT_BINARY_DIR}/pionConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/PionFindTorch.cmake
        DESTINATION ${pion_cmake_dir} COMPONENT pion)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT pion)

# pion.pc says where it lies itself, so that the folder can be moved
file(RELATIVE_PATH pion_pc_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
set(pion_pc_libs "-lpion_optim -lpion_spectral -lpion_kernels")
if(PION_SHARED)
  set(pion_pc_libs "-lpion_optim")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/pion.pc.in ${PROJECT_BINARY_DIR}/pion.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/pion.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT pion)
