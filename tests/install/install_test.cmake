# SPDX-License-Identifier: Apache-2.0
# cmake -DBUILD=... -DTORCH=... -DGENERATOR=... -DCOMPILER=... -DCONFIG=... -DEXAMPLE=...
#     -DSOURCE=... -DWITH_TORCH=... -P this
get_filename_component(name ${EXAMPLE} NAME)
set(temporary $ENV{TMPDIR})
if(NOT temporary)
  set(temporary /tmp)
endif()
string(RANDOM LENGTH 8 unique)
set(scratch ${temporary}/pion-install-${name}-${unique})

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(result)
    file(REMOVE_RECURSE ${scratch})
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "${command}\n${output}")
  endif()
  message(STATUS "${output}")
endfunction()

file(COPY ${EXAMPLE}/ DESTINATION ${scratch}/source)
if(name STREQUAL "subproject_example")
  run(${CMAKE_COMMAND} -S ${scratch}/source -B ${scratch}/build -G ${GENERATOR}
      -DCMAKE_CXX_COMPILER=${COMPILER} -DTorch_DIR=${TORCH} -DPION_SOURCE=${SOURCE}
      -DPION_TORCH=${WITH_TORCH})
  file(REMOVE_RECURSE ${scratch})
  return()
endif()
run(${CMAKE_COMMAND} --install ${BUILD} --component pion --prefix ${scratch}/prefix)
# the optim example must not find LibTorch by accident
set(torch)
if(name STREQUAL "torch_example")
  set(torch -DTorch_DIR=${TORCH})
endif()
run(${CMAKE_COMMAND} -S ${scratch}/source -B ${scratch}/build -G ${GENERATOR}
    -DCMAKE_PREFIX_PATH=${scratch}/prefix -DCMAKE_CXX_COMPILER=${COMPILER}
    -DCMAKE_BUILD_TYPE=${CONFIG} ${torch})
run(${CMAKE_COMMAND} --build ${scratch}/build)
run(${scratch}/build/example)
file(REMOVE_RECURSE ${scratch})
