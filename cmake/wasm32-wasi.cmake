# Cross build for WebAssembly with Debian's clang 19, wasi-libc and compiler-rt. Test programs run in Node,
# through its WASI. Their libraries lie in build/wasm-sysroot (tools/wasm-sysroot.sh).
# DIBIT_WASM_RELAXED: with relaxed SIMD, for engines that have it.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
set(CMAKE_C_COMPILER clang-19)
set(CMAKE_C_COMPILER_TARGET wasm32-wasi)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DIBIT_WASM_RELAXED)
set(CMAKE_AR llvm-ar-19)
set(CMAKE_RANLIB llvm-ranlib-19)
set(CMAKE_NM llvm-nm-19)

set(dibit_simd "-msimd128 -mbulk-memory -mnontrapping-fptoint -msign-ext")
if(DIBIT_WASM_RELAXED)
  string(APPEND dibit_simd " -mrelaxed-simd")
endif()
set(CMAKE_C_FLAGS_INIT "--sysroot=/usr ${dibit_simd}")

# The stack is below the data, so that running out of it traps. -O0 here is for the compiler's driver,
# which else calls the wasm-opt that it finds: Debian's does not know relaxed SIMD.
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "-O0 -Wl,-O2 -Wl,--gc-sections -Wl,--stack-first -Wl,-z,stack-size=1048576 -Wl,--max-memory=4294967296")

get_filename_component(dibit_sysroot ${CMAKE_CURRENT_LIST_DIR}/../build/wasm-sysroot ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH ${dibit_sysroot})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${dibit_sysroot}/lib/pkgconfig)
get_filename_component(dibit_wasi ${CMAKE_CURRENT_LIST_DIR}/../tests/wasm/wasi.mjs ABSOLUTE)
set(CMAKE_CROSSCOMPILING_EMULATOR node --no-warnings ${dibit_wasi})
