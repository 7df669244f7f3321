# SPDX-License-Identifier: Apache-2.0
# find_package(pion CONFIG): pion::pion (LibTorch optimizers) and pion::optim (no framework).
include(CMakePackageConfigHelpers)
set(pion_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pion)

# Two export sets: who asks for the component optim alone is not asked for LibTorch.
function(pion_install export)
  install(TARGETS ${ARGN} EXPORT ${export} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
                                                   COMPONENT pion)
  install(EXPORT ${export} NAMESPACE pion:: DESTINATION ${pion_cmake_dir} COMPONENT pion)
endfunction()

set_target_properties(pion_kernels PROPERTIES EXPORT_NAME kernels)
set_target_properties(pion_spectral PROPERTIES EXPORT_NAME spectral)
set_target_properties(pion_optim PROPERTIES EXPORT_NAME optim)
pion_install(pionOptimTargets pion_kernels pion_spectral pion_optim)
add_library(pion::optim ALIAS pion_optim)
set(pion_header_exclusion PATTERN "torch" EXCLUDE)
if(PION_TORCH)
  set_target_properties(pion_torch PROPERTIES EXPORT_NAME pion)
  pion_install(pionTorchTargets pion_torch)
  add_library(pion::pion ALIAS pion_torch)
  set(pion_header_exclusion)
endif()
install(
  DIRECTORY ${PROJECT_SOURCE_DIR}/pion
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT pion
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "loaded_tiles.h" EXCLUDE # tests' own
  PATTERN "routing_zoo.h" EXCLUDE ${pion_header_exclusion})

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/pionConfig.cmake.in ${PROJECT_BINARY_DIR}/pionConfig.cmake
  INSTALL_DESTINATION ${pion_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pionConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pionConfig.cmake ${PROJECT_BINARY_DIR}/pionConfigVersion.cmake
        DESTINATION ${pion_cmake_dir} COMPONENT pion)
