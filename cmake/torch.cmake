# Finds the torch of the Python that is built for, and compiles geoact._torch against it. Not through torch's own
# TorchConfig.cmake, which demands CUDA, MKL and more where torch was built with them.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import os, torch; print(torch.__version__, int(torch.compiled_with_cxx11_abi()), os.path.dirname(torch.__file__), sep=';', end='')"
  OUTPUT_VARIABLE torch_found ERROR_VARIABLE torch_error RESULT_VARIABLE torch_missing)

if(torch_missing)
  if(GEOACT_TORCH STREQUAL "ON")
    message(FATAL_ERROR "GEOACT_TORCH=ON, but ${Python_EXECUTABLE} cannot import torch:\n${torch_error}")
  endif()
  message(STATUS "geoact: torch fast path: not built (torch cannot be imported; pip isolates builds unless told "
                 "--no-build-isolation)")
  return()
endif()

list(GET torch_found 0 torch_version)
list(GET torch_found 1 torch_abi)
list(GET torch_found 2 torch_folder)
if(GEOACT_TORCH STREQUAL "AUTO" AND NOT torch_version MATCHES "^${tested_torch}")
  message(STATUS "geoact: torch fast path: not built (not tested with torch ${torch_version}; GEOACT_TORCH=ON tries)")
  return()
endif()
message(STATUS "geoact: torch fast path: built for torch ${torch_version}")

Python_add_library(_torch MODULE WITH_SOABI csrc/torch/kernel.cpp csrc/torch/module.cpp csrc/torch/node.cpp)
# pybind11 as torch carries it: the helpers of its headers are compiled with that.
target_include_directories(_torch SYSTEM PRIVATE "${torch_folder}/include" "${torch_folder}/include/torch/csrc/api/include")
target_compile_definitions(_torch PRIVATE _GLIBCXX_USE_CXX11_ABI=${torch_abi})
target_compile_options(_torch PRIVATE ${warnings})
foreach(library IN ITEMS c10 torch_cpu torch_python)
  target_link_libraries(_torch PRIVATE "${torch_folder}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}${library}${CMAKE_SHARED_LIBRARY_SUFFIX}")
endforeach()
# torch is imported first, so its libraries are there by name: no path of the build machine is kept.
set_target_properties(_torch PROPERTIES SKIP_BUILD_RPATH ON)
file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/_torch_built_for.txt" "${torch_version}\n")
install(TARGETS _torch DESTINATION geoact)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/_torch_built_for.txt" DESTINATION geoact)
