# Makes a program of the sample in a public header's comment (between STEP BY STEP and MEMORY).
# usage: cmake -DHEADER=dibit.h -DOUT=sample.c -P make_sample.cmake
cmake_minimum_required(VERSION 3.25)
file(READ ${HEADER} text)
string(REGEX MATCH "STEP BY STEP\n(.*)\n \\*\n \\* MEMORY" found "${text}")
if(NOT found)
  message(FATAL_ERROR "${HEADER} has no sample")
endif()
set(body "${CMAKE_MATCH_1}")
string(REGEX REPLACE "\n \\*    ? ?" "\n" body "\n${body}")
string(REPLACE ") ...\n" ") return 1;\n" body "${body}\n")
get_filename_component(name ${HEADER} NAME)
file(WRITE ${OUT}.new "#include <dibit/${name}>\n\nint main(void) {${body}    return 0;\n}\n")
file(COPY_FILE ${OUT}.new ${OUT} ONLY_IF_DIFFERENT)
