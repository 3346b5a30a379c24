// libFuzzer: any bytes as a PCI configuration space; what a capture keeps of it says the same as the whole, and is its own
// excerpt.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "backends/intake/config_space.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ioplan::intake;
  const std::string_view config(reinterpret_cast<const char*>(data), size);
  const std::string excerpt = config_excerpt(config);
  if (config_excerpt(excerpt) != excerpt || capabilities_of(excerpt) != capabilities_of(config)) std::abort();
  return 0;
}
