# src/CMakeLists.txt lists exactly the .wgsl files of the tree, in order.
file(GLOB_RECURSE found RELATIVE ${SOURCE_DIR} ${SOURCE_DIR}/*.wgsl)
list(SORT found)
string(REPLACE ";" "|" found "${found}")
if(NOT found STREQUAL LISTED)
  message(FATAL_ERROR "dibit_shaders in src/CMakeLists.txt is\n  ${LISTED}\nbut the tree has\n  ${found}")
endif()
