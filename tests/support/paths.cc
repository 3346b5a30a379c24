#include "tests/support/paths.h"

namespace ioplan {

std::filesystem::path source_folder() { return IOPLAN_SOURCE_DIR; }
std::string ioplan_program() { return IOPLAN_BINARY; }

}  // namespace ioplan
