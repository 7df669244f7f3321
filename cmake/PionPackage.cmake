# SPDX-License-Identifier: Apache-2.0
# pion::optim (no framework) and pion::pion (LibTorch's optimizers): static libraries, or with
# PION_SHARED one shared library each. The lab and the tests always link the static ones.

# A shared library of static ones; outside it only names of pion can be seen.
function(pion_shared_library name)
  cmake_parse_arguments(arg "" "OUTPUT" "WHOLE;LIBS" ${ARGN})
  list(GET arg_WHOLE -1 last)
  add_library(${name} SHARED $<TARGET_OBJECTS:${last}>)
  list(REMOVE_ITEM arg_WHOLE ${last})
  pion_flags(${name})
  set_target_properties(
    ${name} PROPERTIES LINKER_LANGUAGE CXX OUTPUT_NAME ${arg_OUTPUT} VERSION ${PROJECT_VERSION}
                       SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
                       LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/pion.map)
  if(arg_WHOLE)
    list(JOIN arg_WHOLE "," whole)
    target_link_libraries(${name} PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,${whole}>)
  endif()
  target_link_libraries(${name} PUBLIC ${arg_LIBS})
  target_link_options(${name} PRIVATE
                      LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/pion.map
                      LINKER:--no-undefined)
endfunction()

set(pion_optim_target pion_optim)
set(pion_torch_target pion_torch)
if(PION_SHARED OR (PION_TESTS AND NOT PION_SANITIZE)) # tests/archives_test.py looks at them
  pion_shared_library(pion_optim_shared OUTPUT pion_optim WHOLE pion_kernels pion_spectral
                      pion_optim LIBS Threads::Threads)
  if(PION_TORCH)
    pion_shared_library(pion_torch_shared OUTPUT pion_torch WHOLE pion_torch LIBS
                        pion_optim_shared torch)
  endif()
endif()
if(PION_SHARED)
  set(pion_optim_target pion_optim_shared)
  set(pion_torch_target pion_torch_shared)
endif()
add_library(pion::optim ALIAS ${pion_optim_target})
if(PION_TORCH)
  add_library(pion::pion ALIAS ${pion_torch_target})
endif()
