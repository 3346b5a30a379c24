#include "tests/support/small_host.h"

#include "engine/base/log2.h"

namespace ioplan::small_host {

namespace {

Unit unit(std::string id, bool snoop_control) {
  Unit u;
  u.id = std::move(id);
  u.driver = Driver::intel;
  // SAGAW: four levels; MGAW 48; 2 MiB and 1 GiB pages; 1022 domain ids. Legacy mode, coherent walks.
  u.facts[UnitFact::cap] = std::uint64_t{4} << 8 | std::uint64_t{47} << 16 | pow2(34) | pow2(35) | 3;
  u.facts[UnitFact::ecap] = pow2(0) | (snoop_control ? pow2(7) : 0);
  return u;
}

Device device(const char* id, std::size_t unit_number, std::uint32_t group) {
  Device d;
  d.id = id;
  d.unit = UnitIndex(unit_number);
  d.group = group;
  d.facts[DeviceFact::device_class] = 0x020000;
  d.facts[DeviceFact::pasid_bits] = 0;
  return d;
}

}  // namespace

Request request_with(const std::vector<std::string>& devices) {
  Request request;
  request.host.name = "small";
  request.host.kernel.arch = Arch::x86_64;
  request.host.units = {unit("dmar0", true), unit("dmar1", false)};
  request.host.devices = {device(kCoherent, 0, 1), device(kNonCoherent, 1, 2), device(kCoherent2, 0, 3),
                          device(kNonCoherent2, 1, 4)};
  VirtualMachine vm;
  vm.name = "vm0";
  vm.memory.ranges = {{{0, (std::uint64_t{1} << 30) - 1}, Access::read_write}};
  for (const std::string& id : devices) {
    AssignedDevice a;
    a.host = request.host.find_device(id);
    if (!a.host) a.mdev = id;
    vm.devices.push_back(std::move(a));
  }
  request.vms.push_back(std::move(vm));
  request.policy.name = "policy";
  return request;
}

void keep_apart(Request& request, const std::string& a, const std::string& b) {
  SeparateRule rule;
  rule.a.host = {a};
  rule.b.host = {b};
  request.policy.rules.push_back({"apart" + std::to_string(request.policy.rules.size()), rule});
}

}  // namespace ioplan::small_host
