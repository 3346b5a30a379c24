// libFuzzer: any bytes as a PCI configuration space; what a capture keeps of it says the same as the whole.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "backends/intake/config_space.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ioplan::intake;
  const std::string_view config(reinterpret_cast<const char*>(data), size);
  const PciCapabilities whole = capabilities_of(config);
  const PciCapabilities kept = capabilities_of(config_excerpt(config));
  const bool same = whole.ats == kept.ats && whole.pri == kept.pri && whole.no_snoop == kept.no_snoop &&
                    whole.pasid_bits == kept.pasid_bits && whole.acs == kept.acs && whole.acs_enabled == kept.acs_enabled;
  if (!same) std::abort();
  return 0;
}
