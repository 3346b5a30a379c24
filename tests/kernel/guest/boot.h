// The guest's process 1: mounts, hands PCI devices to vfio-pci, and turns the machine off at the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ioplan::kernel_test {

// Mounts /proc, /sys and /dev; standard output becomes the console.
void mount_file_systems();

// Gives every PCI device with an IOMMU group, save bridges, to vfio-pci. Their addresses, ascending.
std::vector<std::string> bind_to_vfio();

// The cdev of a device that vfio-pci has.
std::string vfio_cdev(const std::string& pci_address);

// The value of `key=` on the kernel command line; `otherwise` when it is not there.
std::string command_line(std::string_view key, std::string_view otherwise);
std::uint64_t command_line_number(std::string_view key, std::uint64_t otherwise);

[[noreturn]] void power_off();

std::string read_file(const std::string& path);  // without trailing newlines; empty when unreadable
bool write_file(const std::string& path, std::string_view text);
std::vector<std::string> list_folder(const std::string& path);  // sorted
std::string link_name(const std::string& path);                 // last component of a symbolic link's target

}  // namespace ioplan::kernel_test
