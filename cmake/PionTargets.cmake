# SPDX-License-Identifier: Apache-2.0
# pion_library(name SOURCES ... [PUBLIC ...] [PRIVATE ...])  one folder's static library
# pion_test(name SOURCES ... LIBS ...)                       one GoogleTest binary
# pion_private_headers(name target ...)  header-only libraries that no user of the target meets
# pion_precompiled(name)                                     uses pion_torch's precompiled header

function(pion_flags target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(
    ${target} PRIVATE -Wall -Wextra -Wno-missing-field-initializers
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>) # g++ 12 warns of "text" + string
  if(PION_SANITIZE)
    # a null pointer traps without a check, and checks for it are a fifth of the compile time
    target_compile_options(
      ${target} PUBLIC -fsanitize=address,undefined -fno-sanitize=null,vptr,object-size
                       -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()

# Joined sources share what headers cost to compile, which is most of it.
function(pion_joined target)
  if(PION_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
  endif()
endfunction()

function(pion_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  pion_flags(${name})
  pion_joined(${name})
  target_link_libraries(${name} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
endfunction()

# Includes of such libraries, under namespaces of pion's own: their inline functions are weak
# symbols, and a program that compiles Eigen with -mavx has other ones of the same names.
function(pion_private_headers name)
  foreach(library IN LISTS ARGN)
    target_include_directories(
      ${name} SYSTEM PRIVATE $<TARGET_PROPERTY:${library},INTERFACE_INCLUDE_DIRECTORIES>)
  endforeach()
  target_compile_definitions(${name} PRIVATE Eigen=pion_eigen nlohmann=pion_nlohmann
                                             toml=pion_toml)
endfunction()

function(pion_test name)
  if(NOT PION_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  pion_flags(${name})
  pion_joined(${name})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endfunction()

# torch/torch.h costs 14 s a file, precompiled 6 s.
function(pion_precompiled name)
  if(TARGET ${name})
    target_precompile_headers(${name} REUSE_FROM pion_torch)
    target_compile_options(${name} PRIVATE -fPIC) # executables too: as the header was compiled
    pion_joined(${name})
  endif()
endfunction()
