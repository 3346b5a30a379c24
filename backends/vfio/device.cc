#include "backends/vfio/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backends/vfio/refusal.h"
#include "engine/base/text.h"

namespace ioplan::vfio {

namespace {

constexpr std::string_view kVfioPci = "/sys/bus/pci/drivers/vfio-pci";

// PCI addresses may be written without their segment.
std::string sysfs_folder(std::string_view id) {
  if (is_uuid(id)) return fmt::format("/sys/bus/mdev/devices/{}", id);
  return fmt::format("/sys/bus/pci/devices/{}{}", std::ranges::count(id, ':') == 1 ? "0000:" : "", id);
}

std::string_view last_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

// Empty when no driver is bound.
std::string driver_of(System& system, const std::string& folder) {
  const auto link = system.read_link(folder + "/driver");
  return link ? std::string(last_name(*link)) : "";
}

// Empty when no VFIO driver is bound.
std::string vfio_name(System& system, const std::string& folder) {
  const auto names = system.list(folder + "/vfio-dev");
  if (!names) return {};
  const auto it = std::ranges::find_if(*names, [](const std::string& n) { return n.starts_with("vfio"); });
  return it == names->end() ? "" : *it;
}

// What hands a device to vfio-pci, as root; KR 2.1.
std::string bind_commands(System& system, const std::string& folder, std::string_view driver) {
  const std::string_view address = last_name(folder);
  std::string text;
  if (!system.list(std::string(kVfioPci))) text += "modprobe vfio-pci && ";
  text += fmt::format("echo vfio-pci > {}/driver_override && ", folder);
  if (!driver.empty()) text += fmt::format("echo {} > {}/driver/unbind && ", address, folder);
  return text + fmt::format("echo {} > {}/bind", address, kVfioPci);
}

tl::unexpected<Error> no_cdev(const std::string& id) {
  return failure(fmt::format("{} has no VFIO cdev on this kernel", id),
                 "cdevs need Linux 6.6 or newer, built with CONFIG_VFIO_DEVICE_CDEV; `--backend type1` needs none");
}

tl::unexpected<Error> not_bound(System& system, const std::string& id, const std::string& folder) {
  const std::string driver = driver_of(system, folder);
  if (driver.starts_with("vfio")) return no_cdev(id);  // before Linux 6.1 there was no vfio-dev either
  const std::string whose = driver.empty() ? "it has no driver" : fmt::format("`{}` drives it", driver);
  if (is_uuid(id)) return failure(fmt::format("the mediated device {} is no VFIO device: {}", id, whose));
  return failure(fmt::format("{} is not bound to vfio-pci: {}", id, whose),
                 "as root: " + bind_commands(system, folder, driver));
}

tl::unexpected<Error> no_iommu(const std::string& address) {
  return failure(fmt::format("{} is behind no IOMMU", address),
                 "turn the IOMMU on: in the firmware's setup, and `intel_iommu=on` or `amd_iommu=on` on the kernel's "
                 "command line");
}

// In sysfs. Errors: no such device.
Result<std::string> folder_of(System& system, const std::string& id) {
  if (!is_uuid(id) && !is_pci_address(id)) {
    return failure(fmt::format("`{}` is no PCI address and no mediated device's UUID", id),
                   "pass an open descriptor of the device");
  }
  std::string folder = sysfs_folder(id);
  const auto present = system.list(folder);
  if (present) return folder;
  if (present.error().value != ENOENT) return refused(Call::sysfs, "reading " + folder, present.error().value);
  return failure(fmt::format("this machine has no device {}", id),
                 "is the host document this machine's? `lspci -D` lists its devices");
}

// Drivers that do no DMA of their own and let a group be viable: driver_managed_dma in the kernel.
bool leaves_dma_alone(System& system, const std::string& folder, std::string_view driver) {
  return driver.empty() || driver == "pcieport" || driver == "pci-stub" || driver == "vfio-pci" ||
         !vfio_name(system, folder).empty();
}

}  // namespace

Result<std::string> find_cdev(System& system, const std::string& id) {
  const auto folder = folder_of(system, id);
  if (!folder) return folder;
  const std::string name = vfio_name(system, *folder);
  if (name.empty()) return not_bound(system, id, *folder);
  if (!system.read_file(fmt::format("{}/vfio-dev/{}/dev", *folder, name))) return no_cdev(id);
  return "/dev/vfio/devices/" + name;
}

Result<std::string> find_group(System& system, const std::string& address) {
  const auto folder = folder_of(system, address);
  if (!folder) return folder;
  const std::string driver = driver_of(system, *folder);
  if (!driver.starts_with("vfio") && vfio_name(system, *folder).empty()) return not_bound(system, address, *folder);
  const auto group = system.read_link(*folder + "/iommu_group");
  if (group) return "/dev/vfio/" + std::string(last_name(*group));
  if (group.error().value == ENOENT) return no_iommu(address);
  return refused(Call::sysfs, fmt::format("reading {}/iommu_group", *folder), group.error().value);
}

Result<void> require_viable_group(System& system, const std::string& address) {
  const std::string group = sysfs_folder(address) + "/iommu_group";
  const auto members = system.list(group + "/devices");
  if (!members) {
    if (members.error().value != ENOENT) return refused(Call::sysfs, "reading " + group, members.error().value);
    return no_iommu(address);
  }
  std::string in_the_way, commands;
  for (const std::string& member : *members) {
    const std::string folder = sysfs_folder(member);
    const std::string driver = driver_of(system, folder);
    if (leaves_dma_alone(system, folder, driver)) continue;
    in_the_way += fmt::format("{}{} (`{}`)", in_the_way.empty() ? "" : ", ", member, driver);
    commands += (commands.empty() ? "" : " && ") + bind_commands(system, folder, driver);
  }
  if (in_the_way.empty()) return {};
  const auto number = system.read_link(group);
  return failure(fmt::format("group {} of {} is not viable: the kernel drives {}",
                             number ? last_name(*number) : std::string_view("?"), address, in_the_way),
                 "the whole group goes to the VM or to nobody; as root: " + commands);
}

}  // namespace ioplan::vfio
