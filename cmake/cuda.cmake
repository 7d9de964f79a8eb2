# Compiles the CUDA kernels: once per storage type by nvcc into geoact._cuda, and, where asked for, as C++ over the
# simulation into geoact._cusim, which is for tests and not part of a wheel.
set(cuda_host csrc/call/call.cpp csrc/cuda/backend.cpp csrc/cuda/launch.cpp csrc/bindings/cuda_module.cpp)
# The compensated products of csrc/ops need every rounding they spell out.
set(cuda_flags -O3 --fmad=false --expt-relaxed-constexpr -Wno-deprecated-gpu-targets)

set(cuda_storages float16=float16 bfloat16=bfloat16 float32=float float64=double)

function(geoact_kernels name target)  # one object per storage type; ARGN: compile options
  set(objects "")
  foreach(storage IN LISTS cuda_storages)
    string(REPLACE "=" ";" pair ${storage})
    list(GET pair 0 dtype)
    list(GET pair 1 type)
    set(unit ${name}_${dtype})
    add_library(${unit} OBJECT csrc/cuda/kernels.cu)
    target_compile_definitions(${unit} PRIVATE GEOACT_STORAGE=${type} GEOACT_TABLE=rows_${dtype})
    target_compile_options(${unit} PRIVATE ${ARGN})
    list(APPEND objects $<TARGET_OBJECTS:${unit}>)
  endforeach()
  target_sources(${target} PRIVATE ${objects})
endfunction()

# --- the simulation ---------------------------------------------------------------------------------------------------
option(GEOACT_CUSIM "Also build geoact._cusim, which runs the CUDA kernels on the host for tests" OFF)
if(GEOACT_CUSIM)
  pybind11_add_module(_cusim MODULE NO_EXTRAS ${cuda_host} csrc/cuda/runtime_sim.cpp csrc/cuda/sim.cpp)
  target_compile_definitions(_cusim PRIVATE GEOACT_SIM GEOACT_CUDA_ARCHITECTURES="simulation")
  target_compile_options(_cusim PRIVATE ${warnings} -ffp-contract=off)
  target_link_libraries(_cusim PRIVATE Threads::Threads)
  set(sources_as_cxx -O1 -ffp-contract=off -fno-math-errno ${warnings} -Wno-unknown-pragmas -Wno-unused-parameter)
  set(objects "")
  foreach(storage IN LISTS cuda_storages)
    string(REPLACE "=" ";" pair ${storage})
    list(GET pair 0 dtype)
    list(GET pair 1 type)
    set(copy "${CMAKE_CURRENT_BINARY_DIR}/kernels_sim_${dtype}.cpp")
    file(CONFIGURE OUTPUT "${copy}" CONTENT "#include \"@CMAKE_CURRENT_SOURCE_DIR@/csrc/cuda/kernels.cu\"\n" @ONLY)
    add_library(cusim_${dtype} OBJECT "${copy}")
    set_source_files_properties("${copy}" PROPERTIES OBJECT_DEPENDS
      "${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/kernels.cu")
    target_compile_definitions(cusim_${dtype} PRIVATE GEOACT_SIM GEOACT_STORAGE=${type} GEOACT_TABLE=rows_${dtype})
    target_compile_options(cusim_${dtype} PRIVATE ${sources_as_cxx})
    target_sources(_cusim PRIVATE $<TARGET_OBJECTS:cusim_${dtype}>)
  endforeach()
  install(TARGETS _cusim DESTINATION geoact)
endif()

# --- nvcc -------------------------------------------------------------------------------------------------------------
set(GEOACT_CUDA AUTO CACHE STRING "Compile geoact._cuda: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE GEOACT_CUDA PROPERTY STRINGS AUTO ON OFF)
if(GEOACT_CUDA STREQUAL "OFF")
  message(STATUS "geoact: CUDA: not built (GEOACT_CUDA=OFF)")
  return()
endif()

# nvcc of the package index keeps its libraries in lib/, where it does not look itself.
if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "import nvidia.cu13 as found; print(list(found.__path__)[0], end='')"
    OUTPUT_VARIABLE packaged ERROR_QUIET RESULT_VARIABLE missing)
  if(NOT missing AND EXISTS "${packaged}/bin/nvcc")
    set(CMAKE_CUDA_COMPILER "${packaged}/bin/nvcc")
    set(CMAKE_CUDA_FLAGS_INIT "-L${packaged}/lib")
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(GEOACT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GEOACT_CUDA=ON, but no nvcc was found; put it on PATH, set CUDACXX, or set GEOACT_PIP_NVCC=1 to "
                        "fetch it from the package index")
  endif()
  message(STATUS "geoact: CUDA: not built (no nvcc; GEOACT_PIP_NVCC=1 fetches one from the package index)")
  return()
endif()

# Code for one architecture runs on later ones of its generation; PTX of the last serves what is to come.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90-real 100-real 120)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  message(FATAL_ERROR "geoact needs nvcc >= 12.0 for C++20, found ${CMAKE_CUDA_COMPILER_VERSION}; GEOACT_CUDA=OFF does "
                      "without it")
endif()
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  list(APPEND cuda_flags -Xfatbin --compress-mode=size)
endif()
message(STATUS "geoact: CUDA: built by nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

pybind11_add_module(_cuda MODULE NO_EXTRAS ${cuda_host} csrc/cuda/runtime_cuda.cpp)
list(JOIN CMAKE_CUDA_ARCHITECTURES ", " architectures)
target_compile_definitions(_cuda PRIVATE GEOACT_CUDA_ARCHITECTURES="${architectures}")
target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${warnings}>)
target_include_directories(_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static)
geoact_kernels(cuda _cuda ${cuda_flags})
install(TARGETS _cuda DESTINATION geoact)
