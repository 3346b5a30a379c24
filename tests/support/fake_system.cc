#include "tests/support/fake_system.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/text.h"
#include "engine/model/features.h"
#include "engine/solve/problem.h"

namespace ioplan::fake {

using iommufd::fails_with;
using iommufd::Reply;

namespace {

constexpr std::uint64_t kAll = ~std::uint64_t{0};

enum class Kind : std::uint8_t { ioas, hwpt, device, access };

// What one MAP has pinned; copies of it share it.
struct Pages {
  std::uint64_t bytes = 0;
  bool writeable = false;
};

struct Area {
  Range range;
  std::shared_ptr<const Pages> pages;
  bool writeable = false;
};

struct Object {
  Kind kind = Kind::ioas;
  std::uint32_t ioas = 0;             // of a HWPT; of an access that is attached
  std::string device;                 // the HWPT's allocator; the device itself
  std::uint32_t flags = 0;            // HWPT
  bool automatic = false;             // HWPT
  std::uint32_t hwpt = 0;             // of a device that is attached
  bool broken = false;                // device: by a replace that failed
  std::vector<Range> allowed;         // IOAS
  std::vector<Area> areas;            // IOAS
  bool tracking = false;              // HWPT
  std::set<std::uint64_t> dirty;      // HWPT: numbers of pages
};

const std::map<unsigned long, std::string>& request_names() {
  static const std::map<unsigned long, std::string> kNames = {
      {uapi::IOMMU_DESTROY, "IOMMU_DESTROY"},
      {uapi::IOMMU_IOAS_ALLOC, "IOMMU_IOAS_ALLOC"},
      {uapi::IOMMU_IOAS_ALLOW_IOVAS, "IOMMU_IOAS_ALLOW_IOVAS"},
      {uapi::IOMMU_IOAS_IOVA_RANGES, "IOMMU_IOAS_IOVA_RANGES"},
      {uapi::IOMMU_IOAS_MAP, "IOMMU_IOAS_MAP"},
      {uapi::IOMMU_IOAS_MAP_FILE, "IOMMU_IOAS_MAP_FILE"},
      {uapi::IOMMU_IOAS_COPY, "IOMMU_IOAS_COPY"},
      {uapi::IOMMU_IOAS_UNMAP, "IOMMU_IOAS_UNMAP"},
      {uapi::IOMMU_HWPT_SET_DIRTY_TRACKING, "IOMMU_HWPT_SET_DIRTY_TRACKING"},
      {uapi::IOMMU_HWPT_GET_DIRTY_BITMAP, "IOMMU_HWPT_GET_DIRTY_BITMAP"},
      {uapi::IOMMU_OPTION, "IOMMU_OPTION"},
      {uapi::IOMMU_HWPT_ALLOC, "IOMMU_HWPT_ALLOC"},
      {uapi::IOMMU_GET_HW_INFO, "IOMMU_GET_HW_INFO"},
      {uapi::VFIO_DEVICE_GET_INFO, "VFIO_DEVICE_GET_INFO"},
      {uapi::VFIO_DEVICE_BIND_IOMMUFD, "VFIO_DEVICE_BIND_IOMMUFD"},
      {uapi::VFIO_DEVICE_ATTACH_IOMMUFD_PT, "VFIO_DEVICE_ATTACH_IOMMUFD_PT"},
      {uapi::VFIO_DEVICE_DETACH_IOMMUFD_PT, "VFIO_DEVICE_DETACH_IOMMUFD_PT"},
      {uapi::KVM_SET_DEVICE_ATTR, "KVM_SET_DEVICE_ATTR"},
  };
  return kNames;
}

template <class Request>
Request& as(void* argument) {
  return *static_cast<Request*>(argument);
}

// A request states its own size first, and a fake of the newest kernel knows no smaller one.
template <class Request>
bool well_sized(void* argument) {
  return *static_cast<std::uint32_t*>(argument) == sizeof(Request);
}

template <class T>
T* at_pointer(std::uint64_t pointer) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(pointer));
}

std::string sysfs_folder(const std::string& id) {
  return (is_uuid(id) ? "/sys/bus/mdev/devices/" : "/sys/bus/pci/devices/") + id;
}

iommufd::HwInfo registers_of(const Host& host, const Unit& unit) {
  iommufd::HwInfo info;
  const auto fact = [&](UnitFact f) { return unit.facts[f].value_or(0); };
  if (unit.driver == Driver::intel && unit.facts[UnitFact::cap] && unit.facts[UnitFact::ecap]) {
    info.type = uapi::IOMMU_HW_INFO_TYPE_INTEL_VTD;
    const uapi::iommu_hw_info_vtd vtd{1, 0, fact(UnitFact::cap), fact(UnitFact::ecap)};
    std::memcpy(info.data.data(), &vtd, sizeof(vtd));
  }
  if (unit.driver == Driver::amd) {
    info.type = uapi::IOMMU_HW_INFO_TYPE_AMD;
    uapi::iommu_hw_info_amd amd{kAll, kAll};
    for (const Unit& u : host.units) {
      if (u.driver != Driver::amd) continue;
      amd.efr &= u.facts[UnitFact::efr].value_or(0);
      amd.efr2 &= u.facts[UnitFact::efr2].value_or(0);
    }
    std::memcpy(info.data.data(), &amd, sizeof(amd));
  }
  if (unit.driver == Driver::smmuv3 && unit.facts[UnitFact::idr0]) {
    info.type = uapi::IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
    uapi::iommu_hw_info_arm_smmuv3 smmu{};
    smmu.idr[0] = static_cast<std::uint32_t>(fact(UnitFact::idr0));
    smmu.idr[1] = static_cast<std::uint32_t>(fact(UnitFact::idr1));
    smmu.idr[3] = static_cast<std::uint32_t>(fact(UnitFact::idr3));
    smmu.idr[5] = static_cast<std::uint32_t>(fact(UnitFact::idr5));
    std::memcpy(info.data.data(), &smmu, sizeof(smmu));
  }
  return info;
}

std::uint32_t uapi_flags(std::uint8_t planned) {
  return ((planned & kNestParent) != 0 ? uapi::IOMMU_HWPT_ALLOC_NEST_PARENT : 0) |
         ((planned & kDirtyTracking) != 0 ? uapi::IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0) |
         ((planned & kPasid) != 0 ? uapi::IOMMU_HWPT_ALLOC_PASID : 0);
}

}  // namespace

struct FakeSystem::Context {
  std::map<std::uint32_t, Object> objects;
  std::uint64_t mode = 0;
  FakeSystem& system;

  explicit Context(FakeSystem& s) : system(s) {}

  Object* find(std::uint32_t id, Kind kind) {
    const auto it = objects.find(id);
    return it == objects.end() || it->second.kind != kind ? nullptr : &it->second;
  }
  std::uint32_t add(Object object) {
    std::uint32_t id = 1;
    while (objects.contains(id)) ++id;
    objects.emplace(id, std::move(object));
    return id;
  }
  std::uint32_t space_of(const Object& o) { return o.hwpt != 0 ? objects.at(o.hwpt).ioas : 0; }
  Traits traits_of(const Object& hwpt) {
    const auto it = system.traits.find({hwpt.device, hwpt.flags});
    return it == system.traits.end() ? Traits{} : it->second;
  }

  // The IOAS's reserved intervals.
  std::vector<Range> reserved(std::uint32_t ioas) {
    std::vector<Range> all;
    for (auto& [id, o] : objects) {
      if (o.kind == Kind::device && space_of(o) == ioas) {
        const auto& own = system.devices_.at(o.device).reserved;
        all.insert(all.end(), own.begin(), own.end());
      }
      if (o.kind == Kind::hwpt && o.ioas == ioas) {
        const Range aperture = traits_of(o).aperture;
        if (aperture.start != 0) all.push_back({0, aperture.start - 1});
        if (aperture.last != kAll) all.push_back({aperture.last + 1, kAll});
      }
    }
    return all;
  }
  RangeSet usable(std::uint32_t ioas) {
    RangeSet set{{0, kAll}};
    for (const Range& r : reserved(ioas)) set.subtract(r);
    return set;
  }
  std::uint64_t alignment(std::uint32_t ioas) {
    std::uint64_t most = 1;
    for (auto& [id, o] : objects) {
      if (o.kind == Kind::hwpt && o.ioas == ioas) most = std::max(most, traits_of(o).alignment);
      if (o.kind == Kind::access && o.ioas == ioas) most = std::max(most, system.page);
    }
    return most;
  }
  // Whether what is mapped or allowed still lies in what is usable.
  bool consistent(std::uint32_t ioas) {
    const RangeSet left = usable(ioas);
    const Object& o = objects.at(ioas);
    const auto inside = [&](const Range& r) { return left.contains(r); };
    return std::ranges::all_of(o.areas, inside, &Area::range) && std::ranges::all_of(o.allowed, inside);
  }
  bool used(std::uint32_t id) const {
    return std::ranges::any_of(objects, [id](const auto& o) { return o.second.ioas == id || o.second.hwpt == id; });
  }
};

struct FakeSystem::DeviceFile {
  std::string device;
  std::shared_ptr<Context> context;  // when bound
  std::uint32_t id = 0;
};

struct FakeSystem::Memory {
  std::uint64_t page = 0, bytes = 0, inode = 0;
};

struct FakeSystem::Open {
  std::shared_ptr<Context> context;
  std::optional<DeviceFile> device;
  std::optional<Memory> memory;
  std::optional<std::map<int, std::shared_ptr<Open>>> kvm;  // files, by the descriptor that named them
};

FakeSystem::FakeSystem() {
  nodes_["/dev/iommu"] = "";
  files_["/sys/bus/pci/drivers/vfio-pci/bind"] = "";
}

FakeSystem::~FakeSystem() = default;

// ------------------------------------------------------------------------------------------------- the machine

void FakeSystem::add(const Device& d) {
  devices_[d.address] = d;
  const std::string folder = sysfs_folder(d.address), group = fmt::format("/sys/kernel/iommu_groups/{}", d.group);
  files_[folder + "/vendor"] = "0x8086";
  links_[folder + "/iommu_group"] = group;
  files_[group + "/devices/" + d.address] = "";
  if (!d.driver.empty()) links_[folder + "/driver"] = "/sys/bus/pci/drivers/" + d.driver;
  if (!d.driver.starts_with("vfio")) return;
  files_[fmt::format("{}/vfio-dev/vfio{}/dev", folder, d.vfio)] = fmt::format("511:{}", d.vfio);
  nodes_[fmt::format("/dev/vfio/devices/vfio{}", d.vfio)] = d.address;
  links_[fmt::format("/sys/dev/char/511:{}", d.vfio)] =
      fmt::format("../../devices/pci0000:00/{}/vfio-dev/vfio{}", d.address, d.vfio);
}

void FakeSystem::add_mediated(const std::string& uuid, unsigned vfio) {
  Device d;
  d.address = uuid;
  devices_[uuid] = d;
  files_[fmt::format("{}/vfio-dev/vfio{}/dev", sysfs_folder(uuid), vfio)] = fmt::format("511:{}", vfio);
  nodes_[fmt::format("/dev/vfio/devices/vfio{}", vfio)] = uuid;
}

void FakeSystem::add_huge_pages(std::uint64_t page_bytes, std::uint64_t free) {
  const std::string folder = fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB/", page_bytes >> 10);
  files_[folder + "free_hugepages"] = files_[folder + "nr_hugepages"] = std::to_string(free);
  for (const char* name : {"resv_hugepages", "nr_overcommit_hugepages", "surplus_hugepages"})
    files_[folder + name] = "0";
}

void FakeSystem::remove(const std::string& path) {
  const auto below = [&](const auto& entry) { return entry.first == path || entry.first.starts_with(path + "/"); };
  std::erase_if(files_, below);
  std::erase_if(links_, below);
  std::erase_if(nodes_, below);
}

void FakeSystem::become(const Host& host, const Plan& plan) {
  page = host.kernel.facts[KernelFact::page_size].value_or(page);
  unsigned vfio = 0;
  for (const ioplan::Device& d : host.devices) {
    Device device;
    device.address = d.id;
    device.group = d.group.value_or(0);
    device.vfio = vfio++;
    if (d.unit) {
      device.unit = host.unit(*d.unit).id;
      device.registers = registers_of(host, host.unit(*d.unit));
    }
    for (const PlannedHwpt& h : plan.hwpts) {
      if (std::ranges::find(h.devices, d.id) == h.devices.end()) continue;
      const auto ioas = std::ranges::find(plan.ioas, h.ioas, &PlannedIoas::id);
      for (const ReservedRegion& r : ioas->reserved) device.reserved.push_back(r.range);
    }
    add(device);
  }
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::bind && is_uuid(s.device)) add_mediated(s.device, vfio++);
  }
  for (const PlannedHwpt& h : plan.hwpts) set_traits(h);
  for (const PlannedIoas& i : plan.ioas) {
    if (i.backing > page) add_huge_pages(i.backing, std::uint64_t{1} << 40);
  }
}

void FakeSystem::set_traits(const PlannedHwpt& h) {
  const Traits t{h.aperture, std::min(h.page_sizes & (~h.page_sizes + 1), page)};
  traits[{h.allocator, uapi_flags(h.flags)}] = t;
  if (!h.automatic) return;
  for (const std::string& d : h.devices) traits[{d, 0}] = t;
}

void FakeSystem::become(const Host& host, const std::vector<const Plan*>& plans, const Law& law) {
  become(host, Plan());
  for (std::uint32_t d = 0; d < host.devices.size(); ++d) {
    Device& device = devices_.at(host.devices[d].id);
    for (const ReservedRegion& r : reserved_by(host, DeviceIndex(d), law)) device.reserved.push_back(r.range);
  }
  unsigned vfio = static_cast<unsigned>(host.devices.size());
  for (const Plan* plan : plans) {
    for (const PlannedHwpt& h : plan->hwpts) set_traits(h);
    for (const PlannedIoas& i : plan->ioas) {
      if (i.backing > page) add_huge_pages(i.backing, std::uint64_t{1} << 40);
      for (const auto& mdevs : {mediated_devices(*plan, i.id), i.retained}) {
        for (const std::string& m : mdevs) {
          if (is_uuid(m) && !devices_.contains(m)) add_mediated(m, vfio++);
        }
      }
    }
  }
}

int FakeSystem::open_kvm() {
  Open open;
  open.kvm.emplace();
  return install(std::move(open));
}

std::vector<std::string> FakeSystem::with_kvm(int kvm) const {
  std::vector<std::string> names;
  for (const auto& [fd, file] : *open_.at(kvm)->kvm) names.push_back(file->device->device);
  std::ranges::sort(names, natural_less);
  return names;
}

// ------------------------------------------------------------------------------------------------- failing

void FakeSystem::fail_nth(std::uint64_t n, int errno_value) {
  fail_in_ = n;
  fail_errno_ = errno_value;
  struck_ = false;
}

void FakeSystem::fail(const std::string& name, int errno_value, unsigned nth) {
  fail_named_[name] = {nth, errno_value};
  struck_ = false;
}

bool FakeSystem::strikes(const std::string& name) {
  calls.push_back(name);
  if (fail_in_ != 0 && --fail_in_ == 0) {
    strike_errno_ = fail_errno_;
    struck_ = true;
    return true;
  }
  const auto it = fail_named_.find(name);
  if (it == fail_named_.end() || --it->second.first != 0) return false;
  strike_errno_ = it->second.second;
  fail_named_.erase(it);
  struck_ = true;
  return true;
}

// ------------------------------------------------------------------------------------------------- files

std::string FakeSystem::resolve(const std::string& path) const {
  for (std::size_t end = path.find('/', 1); end != path.npos; end = path.find('/', end + 1)) {
    const auto link = links_.find(path.substr(0, end));
    if (link != links_.end()) return resolve(link->second + path.substr(end));
  }
  const auto link = links_.find(path);
  return link == links_.end() ? path : resolve(link->second);
}

Reply<std::string> FakeSystem::read_file(const std::string& path) {
  if (strikes("read " + path)) return fails_with(strike_errno_);
  const auto it = files_.find(resolve(path));
  if (it == files_.end()) return fails_with(ENOENT);
  return it->second;
}

Reply<std::string> FakeSystem::read_link(const std::string& path) {
  if (strikes("read_link " + path)) return fails_with(strike_errno_);
  const auto it = links_.find(path);
  if (it == links_.end()) return fails_with(ENOENT);
  return it->second;
}

Reply<std::vector<std::string>> FakeSystem::list(const std::string& path) {
  if (strikes("list " + path)) return fails_with(strike_errno_);
  const std::string folder = resolve(path) + "/";
  std::set<std::string> names;
  for (const auto* entries : {&files_, &links_}) {
    for (auto it = entries->lower_bound(folder); it != entries->end() && it->first.starts_with(folder); ++it) {
      names.insert(it->first.substr(folder.size(), it->first.find('/', folder.size()) - folder.size()));
    }
  }
  if (names.empty()) return fails_with(ENOENT);
  return std::vector<std::string>(names.begin(), names.end());
}

int FakeSystem::install(Open open) {
  int fd = 3;
  while (open_.contains(fd)) ++fd;
  open_.emplace(fd, std::make_shared<Open>(std::move(open)));
  return fd;
}

int FakeSystem::duplicate(int fd) {
  int copy = 3;
  while (open_.contains(copy)) ++copy;
  open_.emplace(copy, open_.at(fd));
  return copy;
}

Reply<iommufd::FileIdentity> FakeSystem::identify(int fd) {
  if (strikes("identify")) return fails_with(strike_errno_);
  const auto it = open_.find(fd);
  if (it == open_.end()) return fails_with(EBADF);
  const Open& open = *it->second;
  if (open.memory) return iommufd::FileIdentity{1, open.memory->inode, 0};
  if (open.context) return iommufd::FileIdentity{5, 1, makedev(10, 126)};
  return iommufd::FileIdentity{5, 2, makedev(511, devices_.at(open.device->device).vfio)};
}

Reply<int> FakeSystem::open(const std::string& path) {
  if (strikes("open " + path)) return fails_with(strike_errno_);
  const auto node = nodes_.find(path);
  if (node == nodes_.end()) return fails_with(ENOENT);
  Open open;
  if (node->second.empty()) {
    open.context = std::make_shared<Context>(*this);
  } else {
    open.device = DeviceFile{node->second, nullptr, 0};
  }
  return install(std::move(open));
}

void FakeSystem::close(int fd) {
  const auto it = open_.find(fd);
  if (it == open_.end()) {
    violations.push_back(fmt::format("close of {}, which is not open", fd));
    return;
  }
  if (it->second->device && it->second.use_count() == 1) unbind(*it->second->device);
  open_.erase(it);
}

// virt/kvm/vfio.c kvm_vfio_file_add, kvm_vfio_file_del.
int FakeSystem::on_kvm(std::map<int, std::shared_ptr<Open>>& files, unsigned long request, void* argument) {
  if (request != uapi::KVM_SET_DEVICE_ATTR) return ENOTTY;
  const auto& r = as<uapi::kvm_device_attr>(argument);
  if (r.group != uapi::KVM_DEV_VFIO_FILE) return ENXIO;
  const int fd = *at_pointer<std::int32_t>(r.addr);
  const auto open = open_.find(fd);
  if (open == open_.end()) return EBADF;
  const auto known = std::ranges::find_if(files, [&](const auto& f) { return f.second == open->second; });
  if (r.attr == uapi::KVM_DEV_VFIO_FILE_DEL) {
    if (known == files.end()) return ENOENT;
    files.erase(known);
    return 0;
  }
  if (!open->second->device) return EINVAL;
  if (known != files.end()) return EEXIST;
  files.emplace(fd, open->second);
  return 0;
}

Reply<int> FakeSystem::memfd_create(const std::string& /*name*/, std::uint64_t page_bytes) {
  if (strikes("memfd_create")) return fails_with(strike_errno_);
  const std::string pool = fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", page_bytes >> 10);
  if (page_bytes > page && !files_.contains(pool)) return fails_with(EINVAL);
  Open open;
  open.memory = Memory{page_bytes, 0, next_inode_++};
  return install(std::move(open));
}

Reply<void> FakeSystem::ftruncate(int fd, std::uint64_t bytes) {
  if (strikes("ftruncate")) return fails_with(strike_errno_);
  const auto it = open_.find(fd);
  if (it == open_.end() || !it->second->memory) return fails_with(EINVAL);
  if (bytes % it->second->memory->page != 0) return fails_with(EINVAL);
  it->second->memory->bytes = bytes;
  return {};
}

Reply<std::uint64_t> FakeSystem::mmap(int fd, std::uint64_t offset, std::uint64_t bytes) {
  if (strikes("mmap")) return fails_with(strike_errno_);
  const auto it = open_.find(fd);
  if (it == open_.end() || !it->second->memory) return fails_with(EBADF);
  const Memory& memory = *it->second->memory;
  if (offset % memory.page != 0 || bytes % memory.page != 0 || offset + bytes > memory.bytes) return fails_with(EINVAL);
  const std::uint64_t address = next_address_;
  next_address_ += std::uint64_t{1} << 44;
  views_[address] = {fd, offset, bytes};
  return address;
}

void FakeSystem::munmap(std::uint64_t address, std::uint64_t bytes) {
  const auto it = views_.find(address);
  if (it == views_.end() || it->second.bytes != bytes) {
    violations.push_back(fmt::format("munmap of {:#x}, which is not mapped so", address));
  } else {
    views_.erase(it);
  }
}

// ------------------------------------------------------------------------------------------------- ioctls

Reply<void> FakeSystem::ioctl(int fd, unsigned long request, void* argument) {
  const auto known = request_names().find(request);
  const std::string name = known == request_names().end() ? fmt::format("ioctl {:#x}", request) : known->second;
  if (strikes(name)) return fails_with(strike_errno_);
  const auto it = open_.find(fd);
  if (it == open_.end()) return fails_with(EBADF);
  int error = ENOTTY;
  if (it->second->context) error = on_iommu(*it->second->context, request, argument);
  if (it->second->device) error = on_device(*it->second->device, request, argument);
  if (it->second->kvm) error = on_kvm(*it->second->kvm, request, argument);
  if (error != 0) return fails_with(error);
  return {};
}

int FakeSystem::on_iommu(Context& c, unsigned long request, void* argument) {
  switch (request) {
    case uapi::IOMMU_IOAS_ALLOC: {
      auto& r = as<uapi::iommu_ioas_alloc>(argument);
      if (!well_sized<uapi::iommu_ioas_alloc>(argument) || r.flags != 0) return EOPNOTSUPP;
      r.out_ioas_id = c.add({});
      return 0;
    }
    case uapi::IOMMU_IOAS_ALLOW_IOVAS: {
      auto& r = as<uapi::iommu_ioas_allow_iovas>(argument);
      Object* ioas = c.find(r.ioas_id, Kind::ioas);
      if (!well_sized<uapi::iommu_ioas_allow_iovas>(argument) || ioas == nullptr) return ENOENT;
      std::vector<Range> before = ioas->allowed;
      ioas->allowed.clear();
      for (std::uint32_t i = 0; i < r.num_iovas; ++i) {
        const auto& range = at_pointer<uapi::iommu_iova_range>(r.allowed_iovas)[i];
        ioas->allowed.push_back({range.start, range.last});
      }
      if (c.consistent(r.ioas_id)) return 0;
      ioas->allowed = std::move(before);
      return EADDRINUSE;
    }
    case uapi::IOMMU_IOAS_IOVA_RANGES: {
      auto& r = as<uapi::iommu_ioas_iova_ranges>(argument);
      if (!well_sized<uapi::iommu_ioas_iova_ranges>(argument) || c.find(r.ioas_id, Kind::ioas) == nullptr)
        return ENOENT;
      const RangeSet usable = c.usable(r.ioas_id);
      const auto capacity = r.num_iovas;
      r.num_iovas = 0;
      r.out_iova_alignment = c.alignment(r.ioas_id);
      for (const Range& range : usable.ranges()) {
        if (r.num_iovas < capacity)
          at_pointer<uapi::iommu_iova_range>(r.allowed_iovas)[r.num_iovas] = {range.start, range.last};
        ++r.num_iovas;
      }
      return r.num_iovas > capacity ? EMSGSIZE : 0;
    }
    case uapi::IOMMU_IOAS_MAP_FILE: {
      auto& r = as<uapi::iommu_ioas_map_file>(argument);
      if (!knows_map_file) return ENOTTY;
      const auto file = open_.find(r.fd);
      if (!well_sized<uapi::iommu_ioas_map_file>(argument) || file == open_.end() || !file->second->memory)
        return EINVAL;
      if (r.start + r.length > file->second->memory->bytes) return EFAULT;
      return map(c, r.ioas_id, {r.iova, r.length, r.start, r.flags, true});
    }
    case uapi::IOMMU_IOAS_MAP: {
      auto& r = as<uapi::iommu_ioas_map>(argument);
      const auto view = views_.upper_bound(r.user_va);
      if (!well_sized<uapi::iommu_ioas_map>(argument) || view == views_.begin()) return EFAULT;
      const auto& [address, v] = *std::prev(view);
      if (r.user_va + r.length > address + v.bytes) return EFAULT;
      return map(c, r.ioas_id, {r.iova, r.length, r.user_va - address + v.offset, r.flags, false});
    }
    case uapi::IOMMU_IOAS_COPY:
      return well_sized<uapi::iommu_ioas_copy>(argument) ? copy(c, as<uapi::iommu_ioas_copy>(argument)) : EINVAL;
    case uapi::IOMMU_HWPT_SET_DIRTY_TRACKING: {
      auto& r = as<uapi::iommu_hwpt_set_dirty_tracking>(argument);
      Object* hwpt = c.find(r.hwpt_id, Kind::hwpt);
      if (!well_sized<uapi::iommu_hwpt_set_dirty_tracking>(argument) || hwpt == nullptr) return ENOENT;
      if ((hwpt->flags & uapi::IOMMU_HWPT_ALLOC_DIRTY_TRACKING) == 0) return EOPNOTSUPP;
      hwpt->tracking = (r.flags & uapi::IOMMU_HWPT_DIRTY_TRACKING_ENABLE) != 0;
      if (hwpt->tracking) hwpt->dirty.clear();
      return 0;
    }
    case uapi::IOMMU_HWPT_GET_DIRTY_BITMAP:
      return well_sized<uapi::iommu_hwpt_get_dirty_bitmap>(argument)
                 ? read_dirty(c, as<uapi::iommu_hwpt_get_dirty_bitmap>(argument))
                 : EINVAL;
    case uapi::IOMMU_IOAS_UNMAP: {
      auto& r = as<uapi::iommu_ioas_unmap>(argument);
      Object* ioas = c.find(r.ioas_id, Kind::ioas);
      if (!well_sized<uapi::iommu_ioas_unmap>(argument) || ioas == nullptr) return ENOENT;
      const Range range{r.iova, r.iova + r.length - 1};
      const auto cut = [&](const Area& a) { return a.range.overlaps(range) && !range.contains(a.range); };
      if (std::ranges::any_of(ioas->areas, cut)) return ENOENT;
      r.length = 0;
      for (const Area& a : ioas->areas) r.length += range.contains(a.range) ? a.range.extent() + 1 : 0;
      if (std::erase_if(ioas->areas, [&](const Area& a) { return range.contains(a.range); }) == 0) return ENOENT;
      r.length -= unmap_forgets;
      return 0;
    }
    case uapi::IOMMU_OPTION: {
      auto& r = as<uapi::iommu_option>(argument);
      if (!well_sized<uapi::iommu_option>(argument) || r.option_id != uapi::IOMMU_OPTION_RLIMIT_MODE ||
          r.object_id != 0)
        return EOPNOTSUPP;
      if (r.op == uapi::IOMMU_OPTION_OP_GET) {
        r.val64 = c.mode;
        return 0;
      }
      if (!cap_sys_resource) return EPERM;
      if (!c.objects.empty()) return EBUSY;
      c.mode = r.val64;
      return 0;
    }
    case uapi::IOMMU_HWPT_ALLOC: {
      auto& r = as<uapi::iommu_hwpt_alloc>(argument);
      const Object* device = c.find(r.dev_id, Kind::device);
      if (!well_sized<uapi::iommu_hwpt_alloc>(argument) || device == nullptr) return ENOENT;
      if (c.find(r.pt_id, Kind::ioas) == nullptr) return EINVAL;
      hwpt_allocations.emplace_back(device->device, r.flags);
      return hwpt_alloc(c, {device->device, r.pt_id, r.flags}, r.out_hwpt_id);
    }
    case uapi::IOMMU_GET_HW_INFO: {
      auto& r = as<uapi::iommu_hw_info>(argument);
      const Object* device = c.find(r.dev_id, Kind::device);
      if (!well_sized<uapi::iommu_hw_info>(argument) || device == nullptr) return ENOENT;
      const iommufd::HwInfo& info = devices_.at(device->device).registers;
      std::memcpy(at_pointer<std::byte>(r.data_uptr), info.data.data(),
                  std::min<std::size_t>(r.data_len, info.data.size()));
      r.out_data_type = info.type;
      return 0;
    }
    case uapi::IOMMU_DESTROY:
      return destroy(c, as<uapi::iommu_destroy>(argument).id);
    default:
      return ENOTTY;
  }
}

int FakeSystem::hwpt_alloc(Context& c, const Allocation& allocation, std::uint32_t& id) {
  Object hwpt;
  hwpt.kind = Kind::hwpt;
  hwpt.ioas = allocation.ioas;
  hwpt.device = allocation.device;
  hwpt.flags = allocation.flags;
  id = c.add(std::move(hwpt));
  if (c.consistent(allocation.ioas)) return 0;
  c.objects.erase(id);
  return EADDRINUSE;
}

int FakeSystem::map(Context& c, std::uint32_t id, const Map& map) {
  Object* ioas = c.find(id, Kind::ioas);
  if (ioas == nullptr) return ENOENT;
  const Range range{map.iova, map.iova + map.length - 1};
  const std::uint64_t alignment = c.alignment(id);
  if (map.iova % alignment != 0 || map.length % alignment != 0 || !c.usable(id).contains(range)) return EINVAL;
  if (std::ranges::any_of(ioas->areas, [&](const Area& a) { return a.range.overlaps(range); })) return EEXIST;
  const bool writeable = (map.flags & uapi::IOMMU_IOAS_MAP_WRITEABLE) != 0;
  if (!cap_ipc_lock && memlock != kAll && pinned() + map.length > memlock) return ENOMEM;
  ioas->areas.push_back({range, std::make_shared<const Pages>(Pages{map.length, writeable}), writeable});
  maps.push_back(map);
  return 0;
}

// What lies without a hole in the source, area by area.
int FakeSystem::copy(Context& c, const uapi::iommu_ioas_copy& r) {
  Object* from = c.find(r.src_ioas_id, Kind::ioas);
  Object* to = c.find(r.dst_ioas_id, Kind::ioas);
  if (from == nullptr || to == nullptr) return ENOENT;
  const bool writeable = (r.flags & uapi::IOMMU_IOAS_MAP_WRITEABLE) != 0;
  const Range source{r.src_iova, r.src_iova + r.length - 1}, target{r.dst_iova, r.dst_iova + r.length - 1};
  std::vector<Area> made;
  RangeSet covered;
  for (const Area& a : from->areas) {
    if (!a.range.overlaps(source)) continue;
    const Range part{std::max(a.range.start, source.start), std::min(a.range.last, source.last)};
    covered.add(part);
    if (writeable && !a.pages->writeable) return EPERM;
    made.push_back({{part.start - source.start + target.start, part.last - source.start + target.start}, a.pages, writeable});
  }
  if (!covered.contains(source)) return ENOENT;
  const std::uint64_t align = c.alignment(r.dst_ioas_id);
  if (target.start % align != 0 || r.length % align != 0 || !c.usable(r.dst_ioas_id).contains(target)) return EINVAL;
  if (std::ranges::any_of(to->areas, [&](const Area& a) { return a.range.overlaps(target); })) return EEXIST;
  to->areas.insert(to->areas.end(), made.begin(), made.end());
  copies.emplace_back(r.dst_iova, r.length);
  return 0;
}

int FakeSystem::read_dirty(Context& c, const uapi::iommu_hwpt_get_dirty_bitmap& r) {
  Object* hwpt = c.find(r.hwpt_id, Kind::hwpt);
  if (hwpt == nullptr) return ENOENT;
  if ((hwpt->flags & uapi::IOMMU_HWPT_ALLOC_DIRTY_TRACKING) == 0) return EOPNOTSUPP;
  const std::uint64_t step = std::max(r.page_size, c.alignment(hwpt->ioas));
  if (r.page_size == 0 || r.iova % step != 0 || r.length % step != 0) return EINVAL;
  std::set<std::uint64_t> left;
  for (const std::uint64_t number : hwpt->dirty) {
    const std::uint64_t iova = number * page;
    const bool inside = iova >= r.iova && iova - r.iova < r.length;
    if (inside) {
      const std::uint64_t bit = (iova - r.iova) / r.page_size;
      at_pointer<std::uint64_t>(r.data)[bit / 64] |= std::uint64_t{1} << bit % 64;
    }
    if (!inside || (r.flags & uapi::IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) != 0) left.insert(number);
  }
  hwpt->dirty = std::move(left);
  return 0;
}

void FakeSystem::write(const std::string& device, std::uint64_t iova) {
  for (const auto& [fd, open] : open_) {
    if (!open->device || open->device->device != device || !open->device->context) continue;
    Context& c = *open->device->context;
    const std::uint32_t hwpt = c.objects.at(open->device->id).hwpt;
    if (hwpt == 0 || !c.objects.at(hwpt).tracking) continue;
    for (const Area& a : c.objects.at(c.objects.at(hwpt).ioas).areas) {
      if (a.range.contains({iova, iova}) && a.writeable) c.objects.at(hwpt).dirty.insert(iova / page);
    }
  }
}

int FakeSystem::destroy(Context& c, std::uint32_t id) {
  const auto it = c.objects.find(id);
  if (it == c.objects.end()) return ENOENT;
  if (it->second.kind == Kind::device || it->second.kind == Kind::access || c.used(id)) return EBUSY;
  c.objects.erase(it);
  return 0;
}

int FakeSystem::on_device(DeviceFile& file, unsigned long request, void* argument) {
  if (request == uapi::VFIO_DEVICE_BIND_IOMMUFD) {
    auto& r = as<uapi::vfio_device_bind_iommufd>(argument);
    if (!well_sized<uapi::vfio_device_bind_iommufd>(argument) || r.flags != 0) return EINVAL;
    return bind(file, r.iommufd, r.out_devid);
  }
  if (!file.context) return EINVAL;
  if (request == uapi::VFIO_DEVICE_GET_INFO) return 0;
  if (request == uapi::VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
    auto& r = as<uapi::vfio_device_attach_iommufd_pt>(argument);
    if (!well_sized<uapi::vfio_device_attach_iommufd_pt>(argument) || r.flags != 0) return EINVAL;
    return attach(file, r.pt_id);
  }
  if (request == uapi::VFIO_DEVICE_DETACH_IOMMUFD_PT) {
    return well_sized<uapi::vfio_device_detach_iommufd_pt>(argument) ? detach(file) : EINVAL;
  }
  return ENOTTY;
}

int FakeSystem::bind(DeviceFile& file, int iommu, std::uint32_t& id) {
  if (file.context) return EINVAL;
  const auto context = open_.find(iommu);
  if (context == open_.end()) return EBADF;
  if (!context->second->context) return EBADFD;
  file.context = context->second->context;
  Object object;
  object.kind = is_uuid(file.device) ? Kind::access : Kind::device;
  object.device = file.device;
  file.id = id = file.context->add(std::move(object));
  return 0;
}

int FakeSystem::attach(DeviceFile& file, std::uint32_t& pt) {
  Context& c = *file.context;
  Object& object = c.objects.at(file.id);
  if (object.hwpt != 0 || object.ioas != 0) {
    if (replaces && c.find(pt, Kind::hwpt) != nullptr && object.hwpt != 0) return replace(file, pt);
    violations.push_back(fmt::format("replace of {}", file.device));
    return EINVAL;
  }
  if (object.kind == Kind::access) {
    if (c.find(pt, Kind::ioas) == nullptr) return ENOENT;
    object.ioas = pt;
    return 0;
  }
  if (c.find(pt, Kind::hwpt) != nullptr) return attach_to_hwpt(file, pt);
  return c.find(pt, Kind::ioas) != nullptr ? attach_to_ioas(file, pt) : ENOENT;
}

// All attached devices of the group move. A replace that the driver refuses leaves the group's reservations lost until all
// of it has been detached (KR 2.4 H1).
int FakeSystem::replace(DeviceFile& file, std::uint32_t hwpt) {
  Context& c = *file.context;
  const std::uint32_t before = c.objects.at(file.id).hwpt;
  std::vector<Object*> members;
  for (auto& [id, o] : c.objects) {
    const bool moves = o.kind == Kind::device && o.hwpt == before && devices_.at(o.device).group == devices_.at(file.device).group;
    if (moves) members.push_back(&o);
  }
  for (Object* o : members) {
    const auto refusal = refusals.find({o->device, c.objects.at(hwpt).device});
    if (refusal == refusals.end()) continue;
    for (Object* m : members) m->broken = true;
    return refusal->second;
  }
  for (Object* o : members) o->hwpt = hwpt;
  if (c.consistent(c.objects.at(hwpt).ioas)) return 0;
  for (Object* o : members) o->hwpt = before;
  return EADDRINUSE;
}

// The oldest automatic HWPT of the device's own unit, or a new one.
int FakeSystem::attach_to_ioas(DeviceFile& file, std::uint32_t& pt) {
  Context& c = *file.context;
  for (const auto& [id, o] : c.objects) {
    const bool candidate = o.kind == Kind::hwpt && o.automatic && o.ioas == pt;
    if (!candidate || devices_.at(o.device).unit != devices_.at(file.device).unit) continue;
    const int error = attach_to_hwpt(file, id);
    if (error == 0) pt = id;
    return error;
  }
  std::uint32_t made = 0;
  if (const int error = hwpt_alloc(c, {file.device, pt, 0}, made)) return error;
  c.objects.at(made).automatic = true;
  pt = made;
  const int error = attach_to_hwpt(file, made);
  if (error != 0) c.objects.erase(made);
  return error;
}

int FakeSystem::attach_to_hwpt(DeviceFile& file, std::uint32_t hwpt) {
  Context& c = *file.context;
  const auto refusal = refusals.find({file.device, c.objects.at(hwpt).device});
  if (refusal != refusals.end()) return refusal->second;
  Object& device = c.objects.at(file.id);
  device.hwpt = hwpt;
  if (c.consistent(c.objects.at(hwpt).ioas)) return 0;
  device.hwpt = 0;
  return EADDRINUSE;
}

int FakeSystem::detach(DeviceFile& file) {
  Context& c = *file.context;
  Object& object = c.objects.at(file.id);
  const std::uint32_t hwpt = std::exchange(object.hwpt, 0);
  object.ioas = 0;
  object.broken = false;
  if (hwpt != 0 && c.objects.at(hwpt).automatic && !c.used(hwpt)) c.objects.erase(hwpt);
  return 0;
}

void FakeSystem::unbind(DeviceFile& file) {
  if (!file.context) return;
  detach(file);
  file.context->objects.erase(file.id);
  file.context.reset();
}

// ------------------------------------------------------------------------------------------------- looking

std::size_t FakeSystem::open_descriptors() const { return open_.size(); }

std::uint64_t FakeSystem::rlimit_mode(int iommu) const { return open_.at(iommu)->context->mode; }

std::uint64_t FakeSystem::pinned() const {
  std::set<const Pages*> counted;
  std::set<const Context*> seen;
  std::uint64_t bytes = 0;
  for (const auto& [fd, open] : open_) {
    if (!open->context || !seen.insert(open->context.get()).second) continue;
    for (const auto& [id, o] : open->context->objects) {
      for (const Area& a : o.areas) bytes += counted.insert(a.pages.get()).second ? a.pages->bytes : 0;
    }
  }
  return bytes;
}

std::string FakeSystem::world() const {
  constexpr const char* kKinds[] = {"ioas", "hwpt", "device", "access"};
  std::string text;
  for (const auto& [fd, open] : open_) {
    if (open->memory) text += fmt::format("fd {}: memory of {} bytes\n", fd, open->memory->bytes);
    if (open->device) text += fmt::format("fd {}: {} object {}\n", fd, open->device->device, open->device->id);
    if (!open->context) continue;
    for (const auto& [id, o] : open->context->objects) {
      text +=
          fmt::format("{} {} {} ioas {} hwpt {} areas {} allowed {}{}\n", id, kKinds[static_cast<std::size_t>(o.kind)],
                      o.device, o.ioas, o.hwpt, o.areas.size(), o.allowed.size(), o.broken ? " broken" : "");
    }
  }
  for (const auto& [address, view] : views_) text += fmt::format("view of {} bytes of fd {}\n", view.bytes, view.fd);
  return text;
}

}  // namespace ioplan::fake
