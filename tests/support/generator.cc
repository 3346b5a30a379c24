#include "tests/support/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <set>

#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::generator {

namespace {

constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  std::size_t index(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[index(values.size())];
  }
  template <class T>
  const T& one_of(const std::vector<T>& values) {
    return values[index(values.size())];
  }
  template <class T>
  void shuffle(T& values) {
    std::shuffle(values.begin(), values.end(), engine_);
  }

 private:
  std::mt19937_64 engine_;
};

// A register of named bits, each set with its own chance; a host's units share a base and differ in a few bits.
struct BitChance {
  unsigned bit;
  unsigned percent;
};

constexpr std::array kIntelCapBits = {BitChance{4, 6},   BitChance{7, 12},  BitChance{34, 85}, BitChance{35, 70},
                                      BitChance{39, 50}, BitChance{56, 60}, BitChance{60, 30}};
constexpr std::array kIntelEcapBits = {BitChance{0, 80},  BitChance{7, 65},  BitChance{26, 50}, BitChance{40, 50},
                                       BitChance{43, 75}, BitChance{45, 60}, BitChance{46, 96}, BitChance{47, 60},
                                       BitChance{48, 75}, BitChance{1, 90},  BitChance{3, 90}};
constexpr std::array kAmdEfrBits = {BitChance{1, 85},  BitChance{4, 90}, BitChance{48, 80},
                                    BitChance{50, 80}, BitChance{7, 80}, BitChance{3, 50}};

template <std::size_t n>
std::uint64_t random_bits(Dice& dice, const std::array<BitChance, n>& chances) {
  std::uint64_t reg = 0;
  for (const BitChance& c : chances) reg |= std::uint64_t{dice.chance(c.percent)} << c.bit;
  return reg;
}

template <std::size_t n>
std::uint64_t disturbed(Dice& dice, std::uint64_t base, const std::array<BitChance, n>& chances, unsigned percent) {
  for (const BitChance& c : chances) {
    if (dice.chance(percent)) base ^= pow2(c.bit);
  }
  return base;
}

enum class Shape : std::uint8_t { ordinary, odd_cycle, flag_conflict };

class Generator {
 public:
  Generator(std::uint64_t seed, const GeneratorOptions& options) : dice_(seed), options_(options) {}

  Request run() {
    shape_ = dice_.chance(options_.odd_cycle) ? Shape::odd_cycle
             : dice_.chance(6)                ? Shape::flag_conflict
                                              : Shape::ordinary;
    scarce_ = dice_.chance(options_.scarce_ids);
    choose_drivers();
    request_.host.name = "host";
    make_kernel();
    make_units();
    make_devices();
    finish_host();
    make_vms();
    make_policy();
    make_ids_scarce();
    if (dice_.chance(options_.absent)) leave_facts_out();
    return std::move(request_);
  }

 private:
  // ------------------------------------------------------------------------------------------------------ host

  void choose_drivers() {
    if (shape_ == Shape::odd_cycle) {
      drivers_ = {dice_.one_of({Driver::intel, Driver::mock, Driver::amd, Driver::intel})};
      return;
    }
    const std::uint64_t roll = dice_.below(100);
    if (roll < 49)
      drivers_ = {Driver::intel};
    else if (roll < 64)
      drivers_ = {Driver::amd};
    else if (roll < 74)
      drivers_ = {Driver::smmuv3};
    else if (roll < 76)
      drivers_ = {Driver::smmuv2};
    else if (roll < 80)
      drivers_ = {Driver::virtio};
    else if (roll < 84)
      drivers_ = {Driver::s390};
    else if (roll < 85)
      drivers_ = {Driver::riscv};
    else if (roll < 91)
      drivers_ = {Driver::mock};
    else
      drivers_ = mixed_owners();
  }

  std::vector<Driver> mixed_owners() {
    return dice_.one_of<std::vector<Driver>>({{Driver::intel, Driver::virtio},
                                              {Driver::intel, Driver::mock},
                                              {Driver::amd, Driver::mock},
                                              {Driver::smmuv3, Driver::smmuv2},
                                              {Driver::smmuv3, Driver::virtio},
                                              {Driver::smmuv2, Driver::virtio, Driver::smmuv3}});
  }

  bool has(Driver d) const { return std::ranges::count(drivers_, d) > 0; }
  bool is_arm() const { return has(Driver::smmuv3) || has(Driver::smmuv2); }

  void make_kernel() {
    Kernel& kernel = request_.host.kernel;
    auto& facts = kernel.facts;
    if (is_arm() && dice_.chance(35)) facts[KernelFact::page_size] = dice_.one_of({4 * kKiB, 16 * kKiB, 64 * kKiB});
    if (is_arm() && dice_.chance(30)) facts[KernelFact::va_bits] = dice_.one_of<std::uint64_t>({48, 39, 52, 47});
    if (has(Driver::intel)) {
      if (dice_.chance(15)) facts[KernelFact::intel_iommu_sm] = dice_.below(2);
      if (dice_.chance(5)) facts[KernelFact::intel_iommu_sp_off] = dice_.below(2);
    }
    if (has(Driver::amd)) {
      facts[KernelFact::la57] = dice_.below(2);
      if (dice_.chance(20)) facts[KernelFact::amd_iommu_pgtbl_v2] = dice_.below(2);
      if (dice_.chance(10)) facts[KernelFact::amd_iommu_nohugepages] = dice_.below(2);
      if (dice_.chance(10)) facts[KernelFact::amd_iommu_v2_pgsizes_only] = dice_.below(2);
      if (dice_.chance(6)) facts[KernelFact::amd_snp] = dice_.below(2);
    }
    if (dice_.chance(1)) facts[KernelFact::isolated_msi] = 0;
    if (dice_.chance(5)) facts[KernelFact::allow_unsafe_interrupts] = 1;
    if (dice_.chance(30)) kernel.release = "7.2.13";
  }

  void make_units() {
    base_cap_ = random_bits(dice_, kIntelCapBits);
    base_ecap_ = random_bits(dice_, kIntelEcapBits);
    base_efr_ = random_bits(dice_, kAmdEfrBits);
    hats_ = dice_.chance(6) ? 3 : dice_.below(3);
    va_size_ = dice_.chance(60) ? 0 : dice_.one_of<std::uint64_t>({48, 64, 52, 40});
    sagaw_ = dice_.one_of<std::uint64_t>({4, 4, 6, 12, 14, 2, 8, 10});
    mgaw_ = dice_.one_of<std::uint64_t>({39, 48, 48, 57, 46, 45});
    for (Driver d : drivers_) {
      std::size_t count = 1 + dice_.index(drivers_.size() > 1 ? 2 : 4);
      if (d == Driver::mock) count = 1;
      if (d == Driver::s390) count = 1 + dice_.index(5);
      for (std::size_t i = 0; i < count; ++i) request_.host.units.push_back(random_unit(d, i));
    }
  }

  Unit random_unit(Driver driver, std::size_t number) {
    constexpr std::array<std::string_view, 8> kPrefix = {"dmar",   "ivhd",  "smmu3.", "smmu2.",
                                                         "viommu", "riscv", "zpci",   "mock"};
    Unit unit;
    unit.driver = driver;
    unit.id = std::string(kPrefix[static_cast<std::size_t>(driver)]) + std::to_string(number);
    switch (driver) {
      case Driver::intel:
        intel_facts(unit);
        break;
      case Driver::amd:
        amd_facts(unit);
        break;
      case Driver::smmuv3:
        smmuv3_facts(unit);
        break;
      case Driver::smmuv2:
        smmuv2_facts(unit);
        break;
      case Driver::virtio:
        virtio_facts(unit);
        break;
      case Driver::riscv:
        unit.facts[UnitFact::riscv_capabilities] = dice_.one_of<std::uint64_t>({0x7f0f10, 0x200});
        break;
      case Driver::s390:
        s390_facts(unit);
        break;
      case Driver::mock:
        break;
    }
    return unit;
  }

  void intel_facts(Unit& unit) {
    const unsigned noise = dice_.one_of({0U, 8U, 16U});
    std::uint64_t cap = disturbed(dice_, base_cap_, kIntelCapBits, noise);
    std::uint64_t mgaw = mgaw_, sagaw = sagaw_;
    if (dice_.chance(noise)) mgaw = dice_.one_of<std::uint64_t>({39, 48, 57, dice_.chance(30) ? 31ULL : 48ULL, 40, 42});
    if (dice_.chance(noise)) sagaw = dice_.one_of<std::uint64_t>({2, 4, 6, 8, 12, 14});
    cap |= dice_.one_of<std::uint64_t>({2, 6, 0});  // ND
    cap |= sagaw << 8 | (mgaw - 1) << 16;
    unit.facts[UnitFact::cap] = cap;
    unit.facts[UnitFact::ecap] = disturbed(dice_, base_ecap_, kIntelEcapBits, noise);
    if (dice_.chance(4)) unit.facts[UnitFact::rwbf_quirk] = 1;
  }

  void amd_facts(Unit& unit) {
    std::uint64_t efr = disturbed(dice_, base_efr_, kAmdEfrBits, dice_.one_of({0U, 0U, 8U}));
    efr |= (dice_.chance(95) ? hats_ : dice_.below(3)) << 10;
    efr |= dice_.below(2) << 12;                   // GATS
    efr |= std::uint64_t{dice_.chance(65)} << 52;  // HDSUP, which differs
    unit.facts[UnitFact::efr] = efr;
    unit.facts[UnitFact::efr2] = (dice_.chance(60) ? pow2(3) : 0) | (dice_.chance(15) ? pow2(11) : 0);
    if (va_size_ != 0) unit.facts[UnitFact::va_size] = va_size_;
  }

  void smmuv3_facts(Unit& unit) {
    const std::uint64_t stages = dice_.one_of<std::uint64_t>({3, 3, 3, 3, 2, 1});
    const std::uint64_t updates = dice_.below(4);
    std::uint64_t idr0 = stages | 2ULL << 2 | std::uint64_t{dice_.chance(80)} << 4 | updates << 6;
    idr0 |= dice_.below(2) << 12 | dice_.below(2) << 18;  // ASID16, VMID16
    std::uint64_t idr5 = dice_.one_of<std::uint64_t>({5, 5, 2, 6, 4, 1, 3}) | dice_.below(2) << 10;
    idr5 |= dice_.one_of<std::uint64_t>({1, 7, 7, 5, 7, 3, 4, 2}) << 4;
    unit.facts[UnitFact::idr0] = idr0;
    unit.facts[UnitFact::idr1] = 0x0e739d10;
    unit.facts[UnitFact::idr3] = dice_.one_of<std::uint64_t>({0, 0x1900});
    unit.facts[UnitFact::idr5] = idr5;
    unit.facts[UnitFact::coherent] = std::uint64_t{dice_.chance(96)};
    unit.facts[UnitFact::httu] = dice_.chance(80) ? std::min<std::uint64_t>(updates, 2) : 0;
    if (dice_.chance(10)) unit.facts[UnitFact::nesting_erratum] = dice_.below(2);
  }

  void smmuv2_facts(Unit& unit) {
    unit.facts[UnitFact::page_sizes] =
        dice_.one_of<std::uint64_t>({0x40201000, 0x60211000, 0x60211000, 0x40201000, 0x20010000});
    const std::uint64_t stages = dice_.one_of<std::uint64_t>({3, 3, 1, 2});
    unit.facts[UnitFact::stage1] = stages & 1;
    unit.facts[UnitFact::stage2] = stages >> 1;
    unit.facts[UnitFact::input_bits] = dice_.one_of<std::uint64_t>({48, 39, 32, 49});
    unit.facts[UnitFact::ipa_bits] = dice_.one_of<std::uint64_t>({40, 48, 36, 42});
    unit.facts[UnitFact::coherent] = std::uint64_t{dice_.chance(85)};
    if (dice_.chance(30)) unit.facts[UnitFact::context_banks] = dice_.one_of<std::uint64_t>({1, 8, 128});
  }

  void virtio_facts(Unit& unit) {
    unit.facts[UnitFact::page_sizes] =
        dice_.one_of<std::uint64_t>({0xfffffffffffff000, 0x40201000, 0xfffffffffffff000, 0xffffffffffff0000, 0x1000});
    if (dice_.chance(50)) {
      unit.facts[UnitFact::input_start] = dice_.chance(80) ? 0 : 0x1000;
      unit.facts[UnitFact::input_last] =
          dice_.one_of<std::uint64_t>({last_of_width(48), last_of_width(39), 0xffffffff});
    }
    if (dice_.chance(25)) {
      const std::uint64_t first = dice_.below(3);
      unit.facts[UnitFact::domain_first] = first;
      unit.facts[UnitFact::domain_last] = first + dice_.below(3);
    }
  }

  void s390_facts(Unit& unit) {
    unit.facts[UnitFact::dma_start] = dice_.chance(50) ? 0 : 0x100000000;
    unit.facts[UnitFact::dma_last] =
        dice_.one_of<std::uint64_t>({last_of_width(40), last_of_width(42), last_of_width(53), last_of_width(64)});
    if (dice_.chance(50)) unit.facts[UnitFact::table_rs] = dice_.below(2);
    if (dice_.chance(50)) unit.facts[UnitFact::table_rf] = dice_.below(2);
    if (dice_.chance(25)) unit.facts[UnitFact::rtr_avail] = dice_.below(2);
  }

  // --------------------------------------------------------------------------------------------------- devices

  void make_devices() {
    std::size_t groups = std::min(options_.most_groups, dice_.chance(12) ? 1 : 2 + dice_.index(5));
    if (shape_ == Shape::odd_cycle) groups = options_.most_groups >= 7 && dice_.chance(35) ? 7 : 5;
    if (shape_ == Shape::odd_cycle && dice_.chance(20)) groups = std::min(groups + 1, options_.most_groups);
    if (shape_ == Shape::ordinary && dice_.chance(8)) groups = options_.most_groups;
    groups_ = groups;
    for (std::size_t g = 0; g < groups + 1; ++g) {  // the last group stays out of every VM
      const std::size_t members = shape_ == Shape::odd_cycle || !dice_.chance(20) ? 1 : 2 + dice_.index(2);
      const std::size_t home = dice_.index(request_.host.units.size());
      for (std::size_t m = 0; m < members; ++m) add_device(g, m, home);
    }
  }

  void add_device(std::size_t group, std::size_t member, std::size_t home) {
    Device d;
    std::size_t unit = home;
    if (member > 0 && dice_.chance(35)) unit = dice_.index(request_.host.units.size());
    const Driver driver = request_.host.units[unit].driver;
    d.unit = UnitIndex(unit);
    d.group = static_cast<std::uint32_t>(10 + (group * 7 + 3) % 11 * 3);
    const std::size_t number = request_.host.devices.size();
    const auto bus = static_cast<unsigned>((number * 37 + dice_.below(3) * 64) % 256);
    d.id = driver == Driver::mock ? fmt::format("mock{}", (number * 5 + 2) % 23)
                                  : fmt::format("0000:{:02x}:{:02x}.{}", bus, number, dice_.below(8));
    if (dice_.chance(70)) d.name = fmt::format("dev{}", number);
    if (dice_.chance(40)) d.labels.push_back(dice_.chance(50) ? "red" : "blue");
    d.facts[DeviceFact::device_class] = dice_.one_of<std::uint64_t>({0x020000, 0x030000, 0x010802, 0x0c0330});
    d.facts[DeviceFact::vendor] = dice_.one_of<std::uint64_t>({0x8086, 0x10de});
    d.facts[DeviceFact::device] = dice_.one_of<std::uint64_t>({0x1572, 0x2330});
    d.facts[DeviceFact::numa] = dice_.below(2);
    d.facts[DeviceFact::pasid_bits] = dice_.one_of<std::uint64_t>({0, 20});
    coherency_facts(d, driver);
    if (driver == Driver::smmuv3) d.facts[DeviceFact::canwbs] = std::uint64_t{dice_.chance(50)};
    if (driver == Driver::mock && dice_.chance(30)) d.facts[DeviceFact::no_dirty] = 1;
    if (dice_.chance(2)) d.facts[DeviceFact::isolated_msi] = std::uint64_t{dice_.chance(80)};
    reserved_regions(d, driver);
    request_.host.devices.push_back(std::move(d));
  }

  // PCI on x86 is coherent by architecture; everything else says where its fact comes from.
  void coherency_facts(Device& d, Driver driver) {
    const bool x86 = (driver == Driver::intel || driver == Driver::amd) && drivers_.size() == 1;
    if (x86 && dice_.chance(85)) return;
    d.facts[DeviceFact::dma_coherent] = std::uint64_t{dice_.chance(98)};
    d.dma_coherent_source =
        dice_.one_of({CoherencySource::architecture, CoherencySource::firmware, CoherencySource::firmware,
                      CoherencySource::driver, CoherencySource::assumed});
  }

  void reserved_regions(Device& d, Driver driver) {
    const bool x86 = driver == Driver::intel || driver == Driver::amd;
    const bool arm = driver == Driver::smmuv3 || driver == Driver::smmuv2 || driver == Driver::virtio;
    if (dice_.chance(65)) return;
    std::vector<ReservedRegion> regions;
    if (x86) regions.push_back({{0xfee00000, 0xfeefffff}, ReservedType::msi});
    if (driver == Driver::amd) regions.push_back({{0xfd00000000, 0xffffffffff}, ReservedType::reserved});
    if (arm) regions.push_back({{0x08000000, 0x080fffff}, ReservedType::sw_msi});
    if (driver == Driver::virtio && dice_.chance(12)) regions.assign({{{0xfee00000, 0xfeefffff}, ReservedType::msi}});
    if (dice_.chance(1)) regions.push_back({{0xa0000000, 0xa000ffff}, ReservedType::direct});
    if (dice_.chance(12)) regions.push_back({{0x7c000000, 0x7fffffff}, ReservedType::direct_relaxable});
    if (dice_.chance(1)) regions.push_back({{0x50000000, 0x5000ffff}, ReservedType::reserved});
    if (dice_.chance(10)) regions.push_back({{0xffff000000000000, ~0ULL}, ReservedType::reserved});
    if (!arm && dice_.chance(10)) regions.push_back({{0xf0000000, 0xf00fffff}, ReservedType::reserved});
    if (x86 && dice_.chance(1) && dice_.chance(50)) regions.push_back({{0x08000000, 0x080fffff}, ReservedType::sw_msi});
    d.reserved = std::move(regions);
  }

  void finish_host() {
    std::set<std::string> seen;  // ids collide rarely: the later device goes
    auto& devices = request_.host.devices;
    std::erase_if(devices, [&](const Device& d) { return !seen.insert(d.id).second; });
    dice_.shuffle(devices);
    sort_by_id(request_.host);
  }

  // ------------------------------------------------------------------------------------------------------- VMs

  void make_vms() {
    std::size_t count = dice_.chance(options_.several_vms) && shape_ != Shape::odd_cycle ? 2 + dice_.index(2) : 1;
    if (scarce_ && shape_ != Shape::odd_cycle && dice_.chance(50)) count = 2;
    request_.vms.resize(count);
    for (std::size_t v = 0; v < count; ++v) request_.vms[v].name = "vm" + std::to_string(v);
    deal_groups(count);
    std::erase_if(request_.vms, [](const VirtualMachine& vm) { return vm.devices.empty(); });
    for (VirtualMachine& vm : request_.vms) {
      if (dice_.chance(shape_ == Shape::odd_cycle ? 2 : 7)) add_mdev(vm);
      make_memory(vm);
      make_needs(vm);
      vm.guest_cache_maintenance = dice_.chance(50);
    }
  }

  void deal_groups(std::size_t vms) {
    std::set<std::uint32_t> numbers;
    for (const Device& d : request_.host.devices) numbers.insert(*d.group);
    std::vector<std::uint32_t> groups(numbers.begin(), numbers.end());
    dice_.shuffle(groups);
    if (groups.size() > groups_) groups.resize(groups_);
    for (std::size_t g = 0; g < groups.size(); ++g)
      assign_group(request_.vms[g < vms ? g : dice_.index(vms)], groups[g]);
  }

  void assign_group(VirtualMachine& vm, std::uint32_t group) {
    bool first = true;
    for (std::size_t i = 0; i < request_.host.devices.size(); ++i) {
      const Device& d = request_.host.devices[i];
      if (d.group != group) continue;
      if (first || dice_.chance(60)) {
        AssignedDevice a;
        a.host = DeviceIndex(i);
        if (dice_.chance(40)) a.name = "guest" + std::to_string(i);
        if (dice_.chance(15)) a.labels.push_back("green");
        vm.devices.push_back(std::move(a));
      }
      first = false;
    }
    std::ranges::sort(vm.devices, {}, [](const AssignedDevice& a) { return *a.host; });
  }

  void add_mdev(VirtualMachine& vm) {
    AssignedDevice a;
    a.mdev = fmt::format("4b20d080-1b54-4048-85b3-a6a62d165c0{}", vm.name.back());
    vm.devices.push_back(std::move(a));
  }

  void make_memory(VirtualMachine& vm) {
    if (dice_.chance(60)) vm.memory.backing = dice_.one_of({4 * kKiB, 2 * kMiB, 2 * kMiB, kGiB});
    const bool low_window = has(Driver::mock);
    const bool from_one_gib = is_arm() || has(Driver::virtio);
    if (has(Driver::s390) && dice_.chance(92)) return explicit_ranges(vm, 0x100000000, 64 * kGiB);
    if (low_window && dice_.chance(92)) return dice_.chance(60) ? explicit_ranges(vm, 0x1000000, kGiB) : virt(vm, kGiB);
    if (from_one_gib && dice_.chance(96)) {
      return dice_.chance(25) ? explicit_ranges(vm, kGiB, 64 * kGiB)
                              : virt(vm, dice_.one_of({kGiB, 4 * kGiB, 300 * kGiB, 31 * kGiB,
                                                       dice_.chance(15) ? 64 * kTiB : 16 * kGiB}));
    }
    if (dice_.chance(20)) return explicit_ranges(vm, 0, dice_.chance(80) ? kGiB : 512 * kGiB);
    pc(vm);
  }

  void virt(VirtualMachine& vm, std::uint64_t size) {
    vm.machine.type = MachineType::virt;
    vm.memory.size = size - (dice_.chance(20) ? 64 * kKiB * (1 + dice_.below(64)) : 0);
  }

  void pc(VirtualMachine& vm) {
    vm.machine.type = dice_.chance(80) ? MachineType::q35 : MachineType::pc;
    vm.machine.cpu_vendor = dice_.chance(50) ? CpuVendor::intel : CpuVendor::amd;
    const std::uint64_t gib =
        dice_.one_of<std::uint64_t>({1, 2, 3, 4, 16, 16, 64, 127, 128, 300, 511, 511, 900, 1000, 1010, 1536});
    vm.memory.size = gib * kGiB - (dice_.chance(15) ? 4 * kKiB * (1 + dice_.below(1024)) : 0);
    if (dice_.chance(10)) vm.machine.pci_hole64_size = dice_.one_of({2 * kGiB, 32 * kGiB, kTiB});
    const std::uint64_t expected = dice_.chance(8) ? dice_.one_of({kGiB, 256 * kGiB}) : 0;
    if (options_.expect_memory) vm.hotplug.memory = expected;
  }

  // One to three disjoint ranges from `start` on; some read-only, some touching nothing nicer than a page.
  void explicit_ranges(VirtualMachine& vm, std::uint64_t start, std::uint64_t most) {
    const std::size_t count = 1 + dice_.index(3);
    const std::uint64_t page = request_.host.kernel.facts[KernelFact::page_size].value_or(4 * kKiB);
    const std::uint64_t unit = dice_.one_of<std::uint64_t>({page, 2 * kMiB, 2 * kMiB, 64 * kMiB});
    std::uint64_t at = start;
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t size = unit * (1 + dice_.below(std::max<std::uint64_t>(1, most / unit / 4)));
      MemoryRange range{{at, at + size - 1}, Access::read_write};
      if (dice_.chance(15)) range.access = Access::read_only;
      vm.memory.ranges.push_back(range);
      at += size + (dice_.chance(50) ? 0 : unit * dice_.below(8));
    }
    if (dice_.chance(3)) {  // 4 KiB is all that a document asks for
      vm.memory.ranges.back().gpa.last += 4 * kKiB;
    }
  }

  void make_needs(VirtualMachine& vm) {
    const bool may_prefer = !scarce_ || request_.vms.size() == 1;
    const auto need = [&](unsigned required, unsigned preferred) {
      if (dice_.chance(required)) return Need::required;
      return may_prefer && !scarce_ && dice_.chance(preferred) ? Need::preferred : Need::no;
    };
    vm.needs.dirty_tracking = need(4, 18);
    vm.needs.nest_parent = need(2, 14);
    vm.needs.pasid = need(2, 14);
  }

  // ---------------------------------------------------------------------------------------------------- policy

  std::vector<DeviceIndex> assigned() const {
    std::vector<DeviceIndex> devices;
    for (const VirtualMachine& vm : request_.vms) {
      for (const AssignedDevice& a : vm.devices) {
        if (a.host) devices.push_back(*a.host);
      }
    }
    return devices;
  }

  Selector one_device(DeviceIndex d) const {
    Selector s;
    s.host.push_back(request_.host.device(d).id);
    return s;
  }

  Selector random_selector() {
    const auto devices = assigned();
    const Device& d = request_.host.device(dice_.one_of(devices));
    Selector s;
    switch (dice_.below(9)) {
      case 0:
        s.device_class.push_back({*d.facts[DeviceFact::device_class] & 0xff0000, 0xff0000});
        break;
      case 1:
        s.vendor.push_back(*d.facts[DeviceFact::vendor]);
        break;
      case 2:
        s.numa.push_back(dice_.below(2));
        break;
      case 3:
        s.label.push_back(dice_.one_of<std::string>({"red", "blue", "green"}));
        break;
      case 4:
        s.name = d.name.empty() ? std::vector<std::string>{"nobody"} : std::vector{d.name};
        break;
      case 5:
        s.device.push_back(*d.facts[DeviceFact::device]);
        s.vendor = {0x10de, 0x8086};
        break;
      case 6:
        s.host = {d.id, request_.host.device(dice_.one_of(devices)).id};
        break;
      default:
        s.host.push_back(d.id);
    }
    std::ranges::sort(s.host);
    s.host.erase(std::unique(s.host.begin(), s.host.end()), s.host.end());
    return s;
  }

  void add_rule(decltype(PolicyRule::what) what) {
    request_.policy.rules.push_back({"rule" + std::to_string(request_.policy.rules.size()), std::move(what)});
  }

  RequireRule random_requirement() {
    RequireRule r;
    r.which = random_selector();
    switch (dice_.below(7)) {
      case 5:
      case 0:
        r.page_size = dice_.one_of({2 * kMiB, 2 * kMiB, kGiB, 64 * kKiB});
        break;
      case 1:
        r.enforce_cache_coherency = true;
        break;
      case 2:
        r.nest_parent = true;
        break;
      case 3:
        r.pasid = true;
        break;
      default:
        r.dirty_tracking = true;
    }
    return r;
  }

  void separate_two_devices() {
    const auto devices = assigned();
    const DeviceIndex a = dice_.one_of(devices), b = dice_.one_of(devices);
    if (request_.host.device(a).group != request_.host.device(b).group)
      add_rule(SeparateRule{one_device(a), one_device(b)});
  }

  void random_rules() {
    const std::size_t count = dice_.chance(22) ? 0 : 1 + dice_.index(4);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t roll = dice_.below(100);
      if (roll < 66)
        separate_two_devices();
      else if (roll < 75)
        add_rule(SeparateRule{random_selector(), random_selector()});
      else if (roll < 85)
        add_rule(TogetherRule{random_selector()});
      else if (roll < 96)
        add_rule(random_requirement());
      else
        add_rule(LimitRule{1 + dice_.below(3)});
    }
  }

  // Lone devices in a ring, neighbours apart: two colours are not enough, and no three exclude each other.
  void odd_cycle_rules() {
    std::vector<DeviceIndex> ring = assigned();
    dice_.shuffle(ring);
    ring.resize(ring.size() >= 7 ? 7 : std::min<std::size_t>(ring.size(), 5));
    for (std::size_t i = 0; i < ring.size() && ring.size() >= 5; ++i) {
      add_rule(SeparateRule{one_device(ring[i]), one_device(ring[(i + 1) % ring.size()])});
    }
    if (dice_.chance(15)) add_rule(random_requirement());
  }

  // Some devices must have what others' HWPT cannot have, or what nobody else in theirs asks for.
  void flag_conflict_rules() {
    const auto devices = assigned();
    for (std::size_t i = dice_.index(3); i > 0; --i) separate_two_devices();
    for (std::size_t i = 0; i < std::min<std::size_t>(devices.size(), 1 + dice_.index(3)); ++i) {
      RequireRule r;
      r.which = one_device(dice_.one_of(devices));
      switch (dice_.below(4)) {
        case 0:
          r.dirty_tracking = true;
          break;
        case 1:
          r.pasid = true;
          break;
        case 2:
          r.nest_parent = true;
          break;
        default:
          r.page_size = kGiB;
      }
      add_rule(std::move(r));
    }
  }

  void make_policy() {
    Policy& policy = request_.policy;
    policy.name = "policy";
    const std::uint64_t roll = dice_.below(100);
    policy.coherency = roll < 66   ? CoherencyPolicy::safe
                       : roll < 98 ? CoherencyPolicy::strict
                                   : CoherencyPolicy::required;
    if (dice_.chance(8)) policy.assumed_coherency = Permission::refuse;
    if (dice_.chance(35)) dice_.shuffle(policy.objectives);
    if (shape_ == Shape::odd_cycle) return odd_cycle_rules();
    if (shape_ == Shape::flag_conflict) return flag_conflict_rules();
    random_rules();
  }

  // --------------------------------------------------------------------------------- scarce ids, absent facts

  // Leaves one or two ids. Where the pool is global (AMD, Arm's ASIDs) only hosts with one unit say what is taken.
  void make_ids_scarce() {
    if (!scarce_) return;
    const auto& units = request_.host.units;
    for (Unit& unit : request_.host.units) {
      const bool only = std::ranges::count(units, unit.driver, &Unit::driver) == 1;
      const std::uint64_t left = 1 + dice_.below(2);
      if (unit.driver == Driver::intel && dice_.chance(60)) {
        const auto nd = static_cast<unsigned>(bits(*unit.facts[UnitFact::cap], 2, 0));
        unit.facts[UnitFact::domains_used] = pow2(4 + 2 * nd) - 2 - left;
      }
      if (unit.driver == Driver::amd && only) unit.facts[UnitFact::domains_used] = 65535 - left;
      if (unit.driver == Driver::smmuv3 && only) {
        // Both kinds of id are short, the wider kind less so.
        const std::uint64_t idr0 = *unit.facts[UnitFact::idr0];
        const std::uint64_t ids = bit(idr0, 12) && bit(idr0, 18) ? 65535 : 255;
        unit.facts[UnitFact::domains_used] = ids - left;
      }
      if (unit.driver == Driver::smmuv2) unit.facts[UnitFact::context_banks] = left;
      if (unit.driver == Driver::virtio) {
        unit.facts[UnitFact::domain_first] = 0;
        unit.facts[UnitFact::domain_last] = left - 1;
      }
    }
  }

  template <class Fact>
  bool leave_out(Facts<Fact>& facts, Fact fact) {
    if (!facts[fact]) return false;
    facts[fact].reset();
    return true;
  }

  // At most two, because the oracle tries every combination of candidates.
  void leave_facts_out() {
    request_.policy.assumed_coherency = Permission::allow;
    std::size_t left = 1 + dice_.index(2);
    for (int tries = 0; tries < 40 && left > 0; ++tries) left -= leave_one_out();
  }

  bool leave_one_out() {
    const auto devices = assigned();
    Device& device = request_.host.devices[dice_.one_of(devices).index()];
    Unit& unit = request_.host.units[device.unit->index()];
    switch (unit.driver) {
      case Driver::intel:
        return leave_out(unit.facts, dice_.chance(65) ? UnitFact::ecap : UnitFact::cap);
      case Driver::amd:
        if (dice_.chance(15)) return leave_out(request_.host.kernel.facts, KernelFact::la57);
        return leave_out(unit.facts, dice_.chance(70) ? UnitFact::efr : UnitFact::efr2);
      case Driver::smmuv3:
        if (dice_.chance(40)) return leave_out(device.facts, DeviceFact::canwbs);
        return leave_out(unit.facts, dice_.one_of({UnitFact::idr5, UnitFact::coherent, UnitFact::httu}));
      case Driver::smmuv2:
        return leave_out(unit.facts, dice_.one_of({UnitFact::coherent, UnitFact::ipa_bits, UnitFact::page_sizes}));
      case Driver::virtio:
        return leave_out(unit.facts, UnitFact::page_sizes);
      default:
        return leave_out(device.facts, dice_.one_of({DeviceFact::numa, DeviceFact::device_class}));
    }
  }

  Dice dice_;
  GeneratorOptions options_;
  Request request_;
  Shape shape_ = Shape::ordinary;
  bool scarce_ = false;
  std::vector<Driver> drivers_;
  std::size_t groups_ = 0;
  std::uint64_t base_cap_ = 0, base_ecap_ = 0, base_efr_ = 0, hats_ = 0, va_size_ = 0, sagaw_ = 0, mgaw_ = 0;
};

// -------------------------------------------------------------------------------------------------------- documents

// Lines of YAML, one nesting level deeper by `indent` spaces.
class Yaml {
 public:
  void line(int indent, const std::string& text) {
    out_ += std::string(static_cast<std::size_t>(indent), ' ') + text + '\n';
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

std::string quoted(const std::string& s) { return '"' + s + '"'; }
std::string range_text(const Range& r) { return "[" + format_hex(r.start) + ", " + format_hex(r.last) + "]"; }

template <class T, class Write>
std::string list_text(const std::vector<T>& values, Write write) {
  std::string text = "[";
  for (const T& v : values) text += (text.size() > 1 ? ", " : "") + write(v);
  return text + "]";
}

std::string strings_text(const std::vector<std::string>& values) { return list_text(values, quoted); }

std::string value_text(const FactRow& row, std::uint64_t value) {
  switch (row.kind) {
    case FactKind::boolean:
      return value != 0 ? "true" : "false";
    case FactKind::integer:
      return std::to_string(value);
    case FactKind::hex:
      return format_hex(value);
    case FactKind::size:
      return format_size(value);
  }
  return {};
}

template <class Fact>
void write_fact(Yaml& out, int indent, const Facts<Fact>& facts, Fact fact) {
  if (facts[fact]) out.line(indent, std::string(row_of(fact).key) + ": " + value_text(row_of(fact), *facts[fact]));
}

void write_kernel(Yaml& out, const Kernel& kernel) {
  Yaml lines;
  if (kernel.arch) lines.line(2, "arch: " + std::string(name_of(*kernel.arch)));
  if (kernel.release) lines.line(2, "release: " + quoted(*kernel.release));
  for (std::size_t f = 0; f < kFactCount<KernelFact>; ++f)
    write_fact(lines, 2, kernel.facts, static_cast<KernelFact>(f));
  const std::string text = lines.take();
  if (text.empty()) return;
  out.line(0, "kernel:");
  out.line(0, text.substr(0, text.size() - 1));
}

// Some facts share a key with others.
bool grouped(UnitFact f) {
  switch (f) {
    case UnitFact::idr0:
    case UnitFact::idr1:
    case UnitFact::idr3:
    case UnitFact::idr5:
    case UnitFact::input_start:
    case UnitFact::input_last:
    case UnitFact::domain_first:
    case UnitFact::domain_last:
    case UnitFact::dma_start:
    case UnitFact::dma_last:
      return true;
    default:
      return false;
  }
}

void write_pair(Yaml& out, const Unit& u, const char* key, UnitFact first, UnitFact last) {
  if (!u.facts[first] || !u.facts[last]) return;
  out.line(4, std::string(key) + ": " + range_text({*u.facts[first], *u.facts[last]}));
}

void write_idr(Yaml& out, const Unit& u) {
  if (!u.facts[UnitFact::idr0]) return;
  std::vector<std::uint64_t> words = {*u.facts[UnitFact::idr0], u.facts[UnitFact::idr1].value_or(0), 0,
                                      u.facts[UnitFact::idr3].value_or(0)};
  if (u.facts[UnitFact::idr5]) words.insert(words.end(), {0, *u.facts[UnitFact::idr5]});
  out.line(4, "idr: " + list_text(words, format_hex));
}

void write_unit(Yaml& out, const Unit& u) {
  out.line(2, "- id: " + quoted(u.id));
  out.line(4, "driver: " + std::string(name_of(u.driver)));
  for (std::size_t f = 0; f < kFactCount<UnitFact>; ++f) {
    if (!grouped(static_cast<UnitFact>(f))) write_fact(out, 4, u.facts, static_cast<UnitFact>(f));
  }
  write_idr(out, u);
  write_pair(out, u, "input_range", UnitFact::input_start, UnitFact::input_last);
  write_pair(out, u, "domain_range", UnitFact::domain_first, UnitFact::domain_last);
  write_pair(out, u, "dma_range", UnitFact::dma_start, UnitFact::dma_last);
}

std::string region_text(const ReservedRegion& r) {
  return fmt::format("{{range: {}, type: {}}}", range_text(r.range),
                     kReservedTypeNames[static_cast<std::size_t>(r.type)]);
}

void write_device(Yaml& out, const Host& host, const Device& d) {
  out.line(2, "- id: " + quoted(d.id));
  if (d.unit) out.line(4, "iommu: " + quoted(host.unit(*d.unit).id));
  if (d.group) out.line(4, "group: " + std::to_string(*d.group));
  if (!d.name.empty()) out.line(4, "name: " + quoted(d.name));
  if (!d.labels.empty()) out.line(4, "label: " + strings_text(d.labels));
  for (std::size_t f = 0; f < kFactCount<DeviceFact>; ++f) {
    const auto fact = static_cast<DeviceFact>(f);
    if (fact != DeviceFact::dma_coherent) write_fact(out, 4, d.facts, fact);
  }
  if (const auto coherent = d.facts[DeviceFact::dma_coherent]) {
    const auto source = static_cast<std::size_t>(d.dma_coherent_source.value_or(CoherencySource::assumed));
    out.line(4, fmt::format("dma_coherent: {{value: {}, source: {}}}", *coherent != 0, kCoherencySourceNames[source]));
  }
  if (d.reserved) out.line(4, "reserved: " + list_text(*d.reserved, region_text));
}

void write_host(Yaml& out, const Host& host) {
  out.line(0, "apiVersion: ioplan/v1\nkind: Host\nname: " + quoted(host.name));
  write_kernel(out, host.kernel);
  out.line(0, "iommus:");
  for (const Unit& u : host.units) write_unit(out, u);
  out.line(0, "devices:");
  for (const Device& d : host.devices) write_device(out, host, d);
}

std::string memory_text(const Memory& m) {
  std::string text;
  if (m.size) text = "size: " + format_size(*m.size);
  if (!m.size) {
    text =
        "ranges: " + list_text(m.ranges, [](const MemoryRange& r) {
          return fmt::format("{{gpa: {}, access: {}}}", range_text(r.gpa), r.access == Access::read_only ? "ro" : "rw");
        });
  }
  if (m.backing) text += ", backing: " + format_size(*m.backing);
  return "{" + text + "}";
}

std::string machine_text(const Machine& m) {
  std::string text = "type: " + std::string(kMachineTypeNames[static_cast<std::size_t>(*m.type)]);
  if (m.cpu_vendor) text += ", cpu_vendor: " + std::string(kCpuVendorNames[static_cast<std::size_t>(*m.cpu_vendor)]);
  if (m.pci_hole64_size) text += ", pci_hole64_size: " + format_size(*m.pci_hole64_size);
  return "{" + text + "}";
}

std::string assigned_text(const Host& host, const AssignedDevice& a) {
  std::string text = a.host ? "host: " + quoted(host.device(*a.host).id) : "mdev: " + quoted(a.mdev);
  if (!a.name.empty()) text += ", name: " + quoted(a.name);
  if (!a.labels.empty()) text += ", label: " + strings_text(a.labels);
  return "{" + text + "}";
}

void write_vm(Yaml& out, const Host& host, const VirtualMachine& vm) {
  out.line(0, "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: " + quoted(vm.name));
  out.line(0, "memory: " + memory_text(vm.memory));
  if (vm.machine.type) out.line(0, "machine: " + machine_text(vm.machine));
  out.line(0, "devices:");
  for (const AssignedDevice& a : vm.devices) out.line(2, "- " + assigned_text(host, a));
  const auto need = [](Need n) { return std::string(kNeedNames[static_cast<std::size_t>(n)]); };
  out.line(0, "needs: {dirty_tracking: " + quoted(need(vm.needs.dirty_tracking)) + ", nest_parent: " +
                  quoted(need(vm.needs.nest_parent)) + ", pasid: " + quoted(need(vm.needs.pasid)) + "}");
  if (vm.hotplug.memory != 0) out.line(0, "hotplug: {memory: " + format_size(vm.hotplug.memory) + "}");
  if (vm.guest_cache_maintenance) out.line(0, "guest_cache_maintenance: true");
}

std::string class_text(const Selector::ClassMatch& m) {
  if (m.mask == 0xff0000) return quoted(fmt::format("0x{:02x}", m.code >> 16));
  if (m.mask == 0xffff00) return quoted(fmt::format("0x{:04x}", m.code >> 8));
  return quoted(fmt::format("0x{:06x}", m.code));
}

std::string selector_text(const Selector& s) {
  std::vector<std::string> keys;
  const auto hex = [](std::uint64_t v) { return format_hex(v); };
  if (!s.host.empty()) keys.push_back("host: " + strings_text(s.host));
  if (!s.name.empty()) keys.push_back("name: " + strings_text(s.name));
  if (!s.label.empty()) keys.push_back("label: " + strings_text(s.label));
  if (!s.vendor.empty()) keys.push_back("vendor: " + list_text(s.vendor, hex));
  if (!s.device.empty()) keys.push_back("device: " + list_text(s.device, hex));
  if (!s.numa.empty()) keys.push_back("numa: " + list_text(s.numa, [](std::uint64_t v) { return std::to_string(v); }));
  if (!s.device_class.empty()) keys.push_back("class: " + list_text(s.device_class, class_text));
  std::string text = "{";
  for (const std::string& k : keys) text += (text.size() > 1 ? ", " : "") + k;
  return text + "}";
}

std::string requirement_text(const RequireRule& r) {
  std::vector<std::string> keys;
  if (r.page_size != 0) keys.push_back("page_size: " + format_size(r.page_size));
  if (r.dirty_tracking) keys.push_back("dirty_tracking: true");
  if (r.nest_parent) keys.push_back("nest_parent: true");
  if (r.pasid) keys.push_back("pasid: true");
  if (r.enforce_cache_coherency) keys.push_back("enforce_cache_coherency: true");
  std::string text;
  for (const std::string& k : keys) text += (text.empty() ? "" : ", ") + k;
  return "require: {" + text + "}, for: " + selector_text(r.which);
}

std::string rule_text(const PolicyRule& rule) {
  std::string text = "{name: " + quoted(rule.name) + ", ";
  if (const auto* r = std::get_if<SeparateRule>(&rule.what)) {
    text += "separate: {a: " + selector_text(r->a) + ", b: " + selector_text(r->b) + "}";
  } else if (const auto* t = std::get_if<TogetherRule>(&rule.what)) {
    text += "together: " + selector_text(t->which);
  } else if (const auto* q = std::get_if<RequireRule>(&rule.what)) {
    text += requirement_text(*q);
  } else {
    text += "limit: {hwpts: " + std::to_string(std::get<LimitRule>(rule.what).hwpts) + "}";
  }
  return text + "}";
}

void write_policy(Yaml& out, const Policy& policy) {
  out.line(0, "---\napiVersion: ioplan/v1\nkind: Policy\nname: " + quoted(policy.name));
  out.line(0, "coherency: " + std::string(kCoherencyPolicyNames[static_cast<std::size_t>(policy.coherency)]));
  out.line(0,
           "assumed_coherency: " + std::string(kPermissionNames[static_cast<std::size_t>(policy.assumed_coherency)]));
  const std::vector<Objective> order(policy.objectives.begin(), policy.objectives.end());
  out.line(0, "objectives: " + list_text(order, [](Objective o) {
                return std::string(kObjectiveNames[static_cast<std::size_t>(o)]);
              }));
  if (policy.rules.empty()) return;
  out.line(0, "rules:");
  for (const PolicyRule& rule : policy.rules) out.line(2, "- " + rule_text(rule));
}

}  // namespace

Request random_request(std::uint64_t seed, const GeneratorOptions& options) { return Generator(seed, options).run(); }

std::string to_documents(const Request& request) {
  Yaml out;
  write_host(out, request.host);
  for (const VirtualMachine& vm : request.vms) write_vm(out, request.host, vm);
  write_policy(out, request.policy);
  return out.take();
}

}  // namespace ioplan::generator
