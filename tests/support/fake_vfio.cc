#include "tests/support/fake_vfio.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ioplan::fake {

using vfio::fails_with;
using vfio::Reply;

namespace {

std::string name_of(unsigned long request) {
  switch (request) {
    case uapi::VFIO_GET_API_VERSION: return "VFIO_GET_API_VERSION";
    case uapi::VFIO_CHECK_EXTENSION: return "VFIO_CHECK_EXTENSION";
    case uapi::VFIO_SET_IOMMU: return "VFIO_SET_IOMMU";
    case uapi::VFIO_GROUP_GET_STATUS: return "VFIO_GROUP_GET_STATUS";
    case uapi::VFIO_GROUP_SET_CONTAINER: return "VFIO_GROUP_SET_CONTAINER";
    case uapi::VFIO_GROUP_UNSET_CONTAINER: return "VFIO_GROUP_UNSET_CONTAINER";
    case uapi::VFIO_GROUP_GET_DEVICE_FD: return "VFIO_GROUP_GET_DEVICE_FD";
    case uapi::VFIO_IOMMU_GET_INFO: return "VFIO_IOMMU_GET_INFO";
    case uapi::VFIO_IOMMU_MAP_DMA: return "VFIO_IOMMU_MAP_DMA";
    case uapi::VFIO_IOMMU_UNMAP_DMA: return "VFIO_IOMMU_UNMAP_DMA";
    case uapi::KVM_SET_DEVICE_ATTR: return "KVM_SET_DEVICE_ATTR";
    default: return "unknown ioctl";
  }
}

std::string folder(const std::string& address) { return "/sys/bus/pci/devices/" + address; }

constexpr const char* kDrivers = "/sys/bus/pci/drivers/";

}  // namespace

// ------------------------------------------------------------------------------------------------- building

FakeVfio::FakeVfio() {
  folders_["/sys/module/vfio_iommu_type1"] = {"parameters"};
  folders_["/sys/bus/pci/drivers/vfio-pci"] = {};
  files_["/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"] = "65535";
}

void FakeVfio::add_device(const std::string& address, unsigned group, const std::string& driver) {
  devices_[address] = {group, driver};
  groups_[group];
  const std::string number = fmt::format("/sys/kernel/iommu_groups/{}", group);
  folders_[folder(address)] = {"iommu_group"};
  links_[folder(address) + "/iommu_group"] = number;
  if (!driver.empty()) links_[folder(address) + "/driver"] = kDrivers + driver;
  if (driver.starts_with("vfio")) {
    folders_[folder(address) + "/vfio-dev"] = {"vfio" + std::to_string(devices_.size())};
    nodes_.insert(group);
  }
  for (const auto& [id, device] : devices_) {
    if (device.first != group) continue;
    folders_[number + "/devices"].insert(id);
    folders_[folder(id) + "/iommu_group/devices"] = folders_[number + "/devices"];
    folders_[folder(id) + "/iommu_group/devices"].insert(address);
  }
  folders_[folder(address) + "/iommu_group/devices"] = folders_[number + "/devices"];
}

void FakeVfio::add_huge_pages(std::uint64_t size, std::uint64_t free) {
  const std::string path = fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB", size >> 10);
  folders_[path] = {"free_hugepages"};
  files_[path + "/free_hugepages"] = files_[path + "/nr_hugepages"] = std::to_string(free);
  for (const char* none : {"/resv_hugepages", "/nr_overcommit_hugepages", "/surplus_hugepages"}) files_[path + none] = "0";
}

void FakeVfio::remove(const std::string& path) {
  const auto below = [&](const auto& entry) { return entry.first == path || entry.first.starts_with(path + "/"); };
  std::erase_if(files_, below);
  std::erase_if(links_, below);
  std::erase_if(folders_, below);
  std::erase_if(nodes_, [&](unsigned n) { return path == "/dev/vfio" || path == fmt::format("/dev/vfio/{}", n); });
}

void FakeVfio::become(const Host& host, const Plan& plan) {
  page = host.kernel.facts[KernelFact::page_size].value_or(page);
  for (const ioplan::Device& d : host.devices) {
    if (d.group) add_device(d.id, *d.group);
  }
  for (const PlannedHwpt& h : plan.hwpts) {
    const auto ioas = std::ranges::find(plan.ioas, h.ioas, &PlannedIoas::id);
    for (const std::string& id : h.devices) {
      const std::uint32_t group = host.device(*host.find_device(id)).group.value();
      domains[group] = {h.id, h.page_sizes, h.enforce_cache_coherency, ioas->ranges};
    }
  }
  for (const PlannedIoas& ioas : plan.ioas) {
    if (ioas.backing > page) add_huge_pages(ioas.backing, std::uint64_t{1} << 40);
  }
}

// ------------------------------------------------------------------------------------------------- failing, files

void FakeVfio::fail_nth(std::uint64_t n, int errno_value) {
  fail_in_ = n;
  fail_errno_ = errno_value;
  struck_ = false;
}

void FakeVfio::fail(const std::string& name, int errno_value, unsigned nth) {
  fail_named_[name] = {nth, errno_value};
  struck_ = false;
}

bool FakeVfio::strikes(const std::string& name) {
  calls.push_back(name);
  if (fail_in_ != 0 && --fail_in_ == 0) {
    strike_errno_ = fail_errno_;
    return struck_ = true;
  }
  const auto it = fail_named_.find(name);
  if (it == fail_named_.end() || --it->second.first != 0) return false;
  strike_errno_ = it->second.second;
  fail_named_.erase(it);
  return struck_ = true;
}

int FakeVfio::install(Open open) {
  int fd = 3;
  while (open_.contains(fd)) ++fd;
  open_.emplace(fd, std::move(open));
  return fd;
}

Reply<int> FakeVfio::open(const std::string& path) {
  if (strikes("open " + path)) return fails_with(strike_errno_);
  if (path == "/dev/vfio/vfio") return install({});
  for (const unsigned group : nodes_) {
    if (path != fmt::format("/dev/vfio/{}", group)) continue;
    if (std::exchange(groups_[group].open, true)) return fails_with(EBUSY);
    Open file;
    file.kind = Kind::group;
    file.group = group;
    return install(std::move(file));
  }
  return fails_with(ENOENT);
}

void FakeVfio::close(int fd) {
  const auto it = open_.find(fd);
  if (it == open_.end()) {
    violations.push_back(fmt::format("descriptor {} closed, and not open", fd));
    return;
  }
  if (it->second.kind == Kind::device) --groups_[it->second.group].devices;
  if (it->second.kind == Kind::group) {
    Group& group = groups_[it->second.group];
    if (group.devices != 0) violations.push_back("a group is closed under its open devices");
    if (group.container >= 0) leave(it->second.group);
    group.open = false;
  }
  if (it->second.kind == Kind::container && !groups_in(fd).empty()) violations.push_back("a container is closed under its groups");
  open_.erase(it);
}

// ------------------------------------------------------------------------------------------------- VFIO

bool FakeVfio::viable(unsigned group) const {
  return std::ranges::none_of(devices_, [&](const auto& d) {
    const std::string& driver = d.second.second;
    return d.second.first == group && !driver.empty() && !driver.starts_with("vfio") && driver != "pcieport";
  });
}

std::vector<unsigned> FakeVfio::groups_in(int container) const {
  std::vector<unsigned> found;
  for (const auto& [number, group] : groups_) {
    if (group.container == container) found.push_back(number);
  }
  return found;
}

std::uint64_t FakeVfio::pages_of(int container) const {
  std::uint64_t pages = ~std::uint64_t{0};
  for (const unsigned g : groups_in(container)) pages &= domains.at(g).page_sizes;
  return (pages & (page - 1)) == 0 ? pages : (pages & ~(page - 1)) | page;
}

std::vector<Range> FakeVfio::ranges_of(int container) const {
  const std::vector<unsigned> groups = groups_in(container);
  return domains.at(groups.front()).ranges;
}

std::uint64_t FakeVfio::locked() const {
  std::uint64_t bytes = locked_before;
  for (const auto& [fd, file] : open_) {
    for (const auto& [iova, last] : file.mapped) bytes += last - iova + 1;
  }
  return bytes;
}

// The last group takes the back end and all mappings with it.
void FakeVfio::leave(unsigned group) {
  const int container = std::exchange(groups_[group].container, -1);
  if (on_leave) on_leave(group, container);
  if (!groups_in(container).empty() || !open_.contains(container)) return;
  open_.at(container).started = false;
  open_.at(container).mapped.clear();
}

int FakeVfio::set_container(unsigned group, int container) {
  if (!open_.contains(container)) return EBADF;
  if (groups_[group].container >= 0) return EINVAL;
  if (open_.at(container).kind != Kind::container) return EBADFD;
  if (!viable(group)) return EBUSY;
  groups_[group].container = container;
  if (on_join) on_join(group, container);
  joined.push_back(group);
  return 0;
}

int FakeVfio::open_device(unsigned group, const std::string& address) {
  const auto it = devices_.find(address);
  if (it == devices_.end() || it->second.first != group) return -ENODEV;
  const int container = groups_[group].container;
  if (container < 0 || !open_.at(container).started) return -EINVAL;
  Open file;
  file.kind = Kind::device;
  file.group = group;
  file.device = address;
  ++groups_[group].devices;
  return install(std::move(file));
}

int FakeVfio::map(int container, const uapi::vfio_iommu_type1_dma_map& request) {
  Open& file = open_.at(container);
  if (!file.started || request.argsz < sizeof(request) || request.size == 0 || request.flags == 0) return EINVAL;
  const Range iova{request.iova, request.iova + request.size - 1};
  const std::uint64_t smallest = pages_of(container) & (~pages_of(container) + 1);
  if (((request.iova | request.size | request.vaddr) & (smallest - 1)) != 0) return EINVAL;
  for (const auto& [first, last] : file.mapped) {
    if (iova.overlaps({first, last})) return EEXIST;
  }
  if (file.mapped.size() >= entries) return ENOSPC;
  const std::vector<Range> offered = ranges_of(container);
  if (std::ranges::none_of(offered, [&](const Range& r) { return r.contains(iova); })) return EINVAL;
  const auto view = std::ranges::find_if(views_, [&](const auto& v) {
    return request.vaddr >= v.first && request.vaddr + request.size <= v.first + v.second.bytes;
  });
  if (view == views_.end()) return EFAULT;
  if (!cap_ipc_lock && locked() + request.size > memlock) return ENOMEM;
  file.mapped[iova.start] = iova.last;
  maps.push_back({iova, view->second.offset + (request.vaddr - view->first), request.flags});
  return 0;
}

int FakeVfio::unmap(int container, uapi::vfio_iommu_type1_dma_unmap& request) {
  Open& file = open_.at(container);
  if (!file.started || request.size == 0) return EINVAL;
  const Range range{request.iova, request.iova + request.size - 1};
  std::uint64_t bytes = 0;
  for (auto it = file.mapped.begin(); it != file.mapped.end();) {
    const Range mapped{it->first, it->second};
    if (mapped.overlaps(range) && !range.contains(mapped)) return EINVAL;
    const bool inside = range.contains(mapped);
    if (inside) bytes += mapped.extent() + 1;
    it = inside ? file.mapped.erase(it) : std::next(it);
  }
  request.size = bytes - std::min(bytes, unmap_forgets);
  return 0;
}

// The capabilities of a real container: unknown ones, migration (which nobody asks for), entries, ranges.
int FakeVfio::info(int container, void* argument) {
  if (!open_.at(container).started) return EINVAL;
  uapi::vfio_iommu_type1_info head;
  std::memcpy(&head, argument, sizeof(head));
  head.flags = uapi::VFIO_IOMMU_INFO_PGSIZES;
  head.iova_pgsizes = pages_of(container);
  head.cap_offset = 0;
  std::vector<std::byte> chain;
  const auto append = [&](const void* bytes, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(bytes);
    chain.insert(chain.end(), first, first + size);
  };
  const auto next_at = [&](std::size_t more) { return static_cast<std::uint32_t>(sizeof(head) + chain.size() + more); };
  const std::vector<Range> ranges = ranges_of(container);
  const std::vector<std::byte> padding(info_padding);
  const uapi::vfio_info_cap_header unknown{77, 1, next_at(sizeof(uapi::vfio_info_cap_header) + padding.size())};
  append(&unknown, sizeof(unknown));
  append(padding.data(), padding.size());
  uapi::vfio_iommu_type1_info_dma_avail avail{{uapi::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1, 0}, 0};
  avail.header.next = next_at(sizeof(avail));
  avail.avail = entries - static_cast<std::uint32_t>(open_.at(container).mapped.size());
  append(&avail, sizeof(avail));
  const uapi::vfio_iommu_type1_info_cap_iova_range list{
      {uapi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, 0}, static_cast<std::uint32_t>(ranges.size()), 0};
  append(&list, sizeof(list));
  for (const Range& r : ranges) append(&r, sizeof(r));
  if (!old_info) {
    head.flags |= uapi::VFIO_IOMMU_INFO_CAPS;
    if (head.argsz < sizeof(head) + chain.size()) {
      head.argsz = static_cast<std::uint32_t>(sizeof(head) + chain.size());
    } else {
      std::memcpy(static_cast<std::byte*>(argument) + sizeof(head), chain.data(), chain.size());
      head.cap_offset = sizeof(head);
    }
  }
  std::memcpy(argument, &head, sizeof(head));
  return 0;
}

// virt/kvm/vfio.c kvm_vfio_file_add, kvm_vfio_file_del.
int FakeVfio::on_kvm(std::set<unsigned>& groups, const uapi::kvm_device_attr& attribute) const {
  const auto file = open_.find(*reinterpret_cast<const std::int32_t*>(attribute.addr));
  if (attribute.group != uapi::KVM_DEV_VFIO_FILE) return ENXIO;
  if (file == open_.end() || file->second.kind != Kind::group) return EBADF;
  if (attribute.attr == uapi::KVM_DEV_VFIO_FILE_ADD) return groups.insert(file->second.group).second ? 0 : EEXIST;
  return groups.erase(file->second.group) == 1 ? 0 : ENOENT;
}

int FakeVfio::open_kvm() {
  Open file;
  file.kind = Kind::kvm;
  return install(std::move(file));
}

std::vector<unsigned> FakeVfio::with_kvm(int kvm) const {
  const auto& groups = open_.at(kvm).with_kvm;
  return {groups.begin(), groups.end()};
}

Reply<void> FakeVfio::ioctl(int fd, unsigned long request, void* argument) {
  if (strikes(name_of(request))) return fails_with(strike_errno_);
  const auto it = open_.find(fd);
  if (it == open_.end()) return fails_with(EBADF);
  int error = ENOTTY;
  if (it->second.kind == Kind::group && request == uapi::VFIO_GROUP_GET_STATUS) {
    auto& status = *static_cast<uapi::vfio_group_status*>(argument);
    status.flags = viable(it->second.group) ? uapi::VFIO_GROUP_FLAGS_VIABLE : 0;
    error = 0;
  } else if (it->second.kind == Kind::kvm) {
    if (request == uapi::KVM_SET_DEVICE_ATTR) error = on_kvm(it->second.with_kvm, *static_cast<uapi::kvm_device_attr*>(argument));
  } else if (it->second.kind == Kind::container) {
    if (request == uapi::VFIO_IOMMU_GET_INFO) error = info(fd, argument);
    if (request == uapi::VFIO_IOMMU_MAP_DMA) error = map(fd, *static_cast<uapi::vfio_iommu_type1_dma_map*>(argument));
    if (request == uapi::VFIO_IOMMU_UNMAP_DMA) error = unmap(fd, *static_cast<uapi::vfio_iommu_type1_dma_unmap*>(argument));
  }
  if (error != 0) return fails_with(error);
  return {};
}

Reply<int> FakeVfio::ask(int fd, unsigned long request, std::uintptr_t argument) {
  if (strikes(name_of(request))) return fails_with(strike_errno_);
  const auto it = open_.find(fd);
  if (it == open_.end()) return fails_with(EBADF);
  const auto answer = [](int value) -> Reply<int> {
    if (value < 0) return fails_with(-value);
    return value;
  };
  if (it->second.kind == Kind::container) {
    if (request == uapi::VFIO_GET_API_VERSION) return version;
    if (request == uapi::VFIO_CHECK_EXTENSION) {
      if (argument != uapi::VFIO_DMA_CC_IOMMU) return extensions.contains(static_cast<std::uint32_t>(argument)) ? 1 : 0;
      const std::vector<unsigned> groups = groups_in(fd);
      return it->second.started && std::ranges::all_of(groups, [&](unsigned g) { return domains.at(g).enforce; }) ? 1 : 0;
    }
    if (request != uapi::VFIO_SET_IOMMU) return fails_with(ENOTTY);
    if (groups_in(fd).empty() || it->second.started) return fails_with(EINVAL);
    if (argument != uapi::VFIO_TYPE1v2_IOMMU) return fails_with(ENODEV);
    it->second.started = true;
    return 0;
  }
  if (it->second.kind != Kind::group) return fails_with(ENOTTY);
  const unsigned group = it->second.group;
  if (request == uapi::VFIO_GROUP_SET_CONTAINER) {
    return answer(-set_container(group, *reinterpret_cast<const std::int32_t*>(argument)));
  }
  if (request == uapi::VFIO_GROUP_GET_DEVICE_FD) return answer(open_device(group, reinterpret_cast<const char*>(argument)));
  if (request != uapi::VFIO_GROUP_UNSET_CONTAINER) return fails_with(ENOTTY);
  if (groups_[group].container < 0) return fails_with(EINVAL);
  if (groups_[group].devices != 0) return fails_with(EBUSY);
  leave(group);
  return 0;
}

// ------------------------------------------------------------------------------------------------- memory, sysfs

// Only iommufd asks which files are the same.
Reply<vfio::FileIdentity> FakeVfio::identify(int) { return fails_with(ENOSYS); }

Reply<int> FakeVfio::memfd_create(const std::string&, std::uint64_t page_bytes) {
  if (strikes("memfd_create")) return fails_with(strike_errno_);
  Open file;
  file.kind = Kind::memory;
  file.page = page_bytes;
  return install(std::move(file));
}

Reply<void> FakeVfio::ftruncate(int fd, std::uint64_t bytes) {
  if (strikes("ftruncate")) return fails_with(strike_errno_);
  if (bytes % open_.at(fd).page != 0) return fails_with(EINVAL);
  open_.at(fd).bytes = bytes;
  return {};
}

Reply<std::uint64_t> FakeVfio::mmap(int fd, std::uint64_t offset, std::uint64_t bytes) {
  if (strikes("mmap")) return fails_with(strike_errno_);
  if (!open_.contains(fd) || bytes == 0) return fails_with(EBADF);
  constexpr std::uint64_t kGap = std::uint64_t{1} << 30;
  const std::uint64_t address = next_address_;
  next_address_ += (bytes / kGap + 2) * kGap;
  views_[address] = {fd, offset, bytes};
  return address;
}

void FakeVfio::munmap(std::uint64_t address, std::uint64_t bytes) {
  const auto it = views_.find(address);
  if (it == views_.end() || it->second.bytes != bytes) {
    violations.push_back(fmt::format("munmap of {:#x}+{:#x}, which is no view", address, bytes));
    return;
  }
  views_.erase(it);
}

Reply<std::string> FakeVfio::read_file(const std::string& path) {
  if (strikes("read " + path)) return fails_with(strike_errno_);
  if (path == "/proc/self/status") return fmt::format("Name:\tioplan\nVmLck:\t    {} kB\nVmPin:\t 0 kB", locked() >> 10);
  const auto it = files_.find(path);
  if (it == files_.end()) return fails_with(ENOENT);
  return it->second;
}

Reply<std::string> FakeVfio::read_link(const std::string& path) {
  if (strikes("read_link " + path)) return fails_with(strike_errno_);
  const auto it = links_.find(path);
  if (it == links_.end()) return fails_with(ENOENT);
  return it->second;
}

Reply<std::vector<std::string>> FakeVfio::list(const std::string& path) {
  if (strikes("list " + path)) return fails_with(strike_errno_);
  const auto it = folders_.find(path);
  if (it == folders_.end()) return fails_with(ENOENT);
  return std::vector<std::string>(it->second.begin(), it->second.end());
}

std::string FakeVfio::world() const {
  std::string text;
  for (const auto& [fd, file] : open_) {
    text += fmt::format("fd {} kind {} group {} {} bytes {}{}\n", fd, static_cast<int>(file.kind), file.group, file.device,
                        file.bytes, file.started ? " started" : "");
    for (const auto& [first, last] : file.mapped) text += fmt::format("  mapped {:#x}-{:#x}\n", first, last);
  }
  for (const auto& [number, group] : groups_) {
    text += fmt::format("group {}{} container {} devices {}\n", number, group.open ? " open" : "", group.container, group.devices);
  }
  for (const auto& [address, view] : views_) text += fmt::format("view {:#x} of {}\n", address, view.fd);
  return text;
}

}  // namespace ioplan::fake
