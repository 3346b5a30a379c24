# find_package(ioplan): the target ioplan::ioplan, and what its headers and its archive need.
include(CMakeFindDependencyMacro)
find_dependency(fmt)
find_dependency(tl-expected)
find_dependency(Boost)
find_dependency(Threads)
find_dependency(yaml-cpp)
include("${CMAKE_CURRENT_LIST_DIR}/ioplanTargets.cmake")
