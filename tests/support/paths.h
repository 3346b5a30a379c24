// Where the sources and the program under test are. The only file that is compiled with the build's own paths.
#pragma once

#include <filesystem>
#include <string>

namespace ioplan {

std::filesystem::path source_folder();
std::string ioplan_program();  // build/.../ioplan

}  // namespace ioplan
