# SPDX-License-Identifier: Apache-2.0
# pion_find_torch([PYTHON ...]): LibTorch 2.13 or later, from the first place that has it:
#
#   Torch_DIR, CMAKE_PREFIX_PATH or Torch_ROOT (variables; the last two also of the environment)
#   the package torch of one of the PYTHONs, then of the python3 in PATH
#
# Sets what find_package(Torch) does. Where there is none, pion_torch_message says what to do.
macro(pion_find_torch)
  find_package(Torch 2.13 QUIET)
  foreach(pion_python ${ARGN} python3)
    if(NOT Torch_FOUND)
      execute_process(
        COMMAND
          ${pion_python} -c
          "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
        RESULT_VARIABLE pion_python_failed OUTPUT_VARIABLE pion_torch_root
        OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(NOT pion_python_failed)
        find_package(Torch 2.13 QUIET PATHS ${pion_torch_root}/share/cmake/Torch NO_DEFAULT_PATH)
      endif()
    endif()
  endforeach()
  if(NOT Torch_FOUND)
    set(pion_torch_message
        "LibTorch 2.13 or later must be found, got none by Torch_DIR, CMAKE_PREFIX_PATH or the "
        "torch package of a Python: pass -DCMAKE_PREFIX_PATH=FOLDER, an unpacked libtorch or what "
        "python -c 'import torch; print(torch.utils.cmake_prefix_path)' prints")
    list(JOIN pion_torch_message "" pion_torch_message)
    if(Torch_CONSIDERED_VERSIONS)
      string(APPEND pion_torch_message " (other versions: ${Torch_CONSIDERED_VERSIONS})")
    endif()
  endif()
endmacro()
