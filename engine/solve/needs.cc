#include "engine/solve/needs.h"

#include <algorithm>

namespace ioplan {

Needs settle_needs(Needs needs, unsigned adopted) {
  for (std::size_t n = 0; n < kPreferableNeeds.size(); ++n) {
    Need& need = needs.*kPreferableNeeds[n].second;
    if (need == Need::preferred) need = (adopted >> n & 1) != 0 ? Need::required : Need::no;
  }
  return needs;
}

std::vector<Needs> settle_needs(const Request& request, std::span<const std::string> adopted) {
  std::vector<Needs> settled;
  for (const VirtualMachine& vm : request.vms) {
    unsigned bits = 0;
    for (std::size_t n = 0; n < kPreferableNeeds.size(); ++n) {
      const std::string name = vm.name + "." + std::string(kPreferableNeeds[n].first);
      if (std::ranges::find(adopted, name) != adopted.end()) bits |= 1U << n;
    }
    settled.push_back(settle_needs(vm.needs, bits));
  }
  return settled;
}

}  // namespace ioplan
