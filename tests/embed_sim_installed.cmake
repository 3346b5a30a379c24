# Installs this build into a folder of its own, then configures, builds and runs the example there as its reader would.
# -DBUILD= the build directory, -DEXAMPLE= its sources, -DCOMPILER= the C++ compiler.
set(prefix ${BUILD}/embed_sim_installed/prefix)
set(build ${BUILD}/embed_sim_installed/build)
file(REMOVE_RECURSE ${prefix} ${build})

execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} -S ${EXAMPLE} -B ${build} -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_CXX_COMPILER=${COMPILER}
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${build} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${build} --output-on-failure COMMAND_ERROR_IS_FATAL ANY)
