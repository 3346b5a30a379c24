// libFuzzer: any text, given to one importer (IOPLAN_FUZZ_KIND), ends in an error or in a Host whose document reads back
// to the same host. `./dev fuzz` builds and runs it; seeds/ has a text of each kind to start from.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "backends/intake/import.h"
#include "tests/fuzz/host_round_trip.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ioplan;
  const std::vector<intake::ImportText> texts = {
      {intake::TextKind::IOPLAN_FUZZ_KIND, "input", std::string(reinterpret_cast<const char*>(data), size)}};
  if (const auto imported = intake::import_host(texts)) fuzz::require_round_trip(imported->settled.host);
  return 0;
}
