# SPDX-License-Identifier: Apache-2.0
# LibTorch from -DCMAKE_PREFIX_PATH, or from the pip package of .venv.
if(NOT Torch_DIR AND EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  execute_process(
    COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python -c
            "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
    OUTPUT_VARIABLE torch_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND CMAKE_PREFIX_PATH ${torch_root}/share/cmake)
endif()
find_package(Torch 2.13 QUIET)
if(NOT Torch_FOUND)
  message(
    FATAL_ERROR
      "LibTorch 2.13 not found: run script/bootstrap, or pass "
      "-DCMAKE_PREFIX_PATH=$(python -c 'import torch; print(torch.utils.cmake_prefix_path)'), "
      "or build without it: -DPION_TORCH=OFF")
endif()
