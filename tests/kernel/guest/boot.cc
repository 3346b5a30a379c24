#include "tests/kernel/guest/boot.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

namespace ioplan::kernel_test {

void mount_file_systems() {
  for (const char* folder : {"/proc", "/sys", "/dev"}) mkdir(folder, 0755);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("sys", "/sys", "sysfs", 0, nullptr);
  mount("dev", "/dev", "devtmpfs", 0, nullptr);
  const int console = open("/dev/console", O_RDWR);
  for (int fd = 0; console >= 0 && fd < 3; ++fd) dup2(console, fd);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
}

std::string read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY);
  if (fd < 0) return {};
  std::string text;
  std::array<char, 4096> part;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  for (ssize_t n = 0; (n = read(fd, part.data(), part.size())) > 0;) text.append(part.data(), static_cast<std::size_t>(n));
  close(fd);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) text.pop_back();
  return text;
}

bool write_file(const std::string& path, std::string_view text) {
  const int fd = open(path.c_str(), O_WRONLY);
  if (fd < 0) return false;
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return written;
}

std::vector<std::string> list_folder(const std::string& path) {
  std::vector<std::string> names;
  if (DIR* folder = opendir(path.c_str())) {
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
    closedir(folder);
  }
  std::ranges::sort(names);
  return names;
}

std::string link_name(const std::string& path) {
  std::array<char, 512> target;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  const ssize_t n = readlink(path.c_str(), target.data(), target.size());
  if (n <= 0) return {};
  const std::string text(target.data(), static_cast<std::size_t>(n));
  return text.substr(text.rfind('/') + 1);
}

std::vector<std::string> bind_to_vfio() {
  std::vector<std::string> bound;
  for (const std::string& id : list_folder("/sys/bus/pci/devices")) {
    const std::string device = "/sys/bus/pci/devices/" + id;
    const bool bridge = read_file(device + "/class").starts_with("0x06");
    if (bridge || link_name(device + "/iommu_group").empty()) continue;
    write_file(device + "/driver_override", "vfio-pci");
    write_file(device + "/driver/unbind", id);
    write_file(device + "/reset_method", "\n");  // a reset takes a tenth of a second, and every open and close is one
    write_file("/sys/bus/pci/drivers/vfio-pci/bind", id);
    if (link_name(device + "/driver") == "vfio-pci") bound.push_back(id);
  }
  return bound;
}

std::string vfio_cdev(const std::string& pci_address) {
  const auto names = list_folder("/sys/bus/pci/devices/" + pci_address + "/vfio-dev");
  return "/dev/vfio/devices/" + (names.empty() ? "none" : names.front());
}

std::string command_line(std::string_view key, std::string_view otherwise) {
  const std::string line = " " + read_file("/proc/cmdline") + " ";
  const std::string wanted = " " + std::string(key) + "=";
  const std::size_t at = line.find(wanted);
  if (at == std::string::npos) return std::string(otherwise);
  const std::size_t start = at + wanted.size();
  return line.substr(start, line.find(' ', start) - start);
}

std::uint64_t command_line_number(std::string_view key, std::uint64_t otherwise) {
  return std::stoull(command_line(key, std::to_string(otherwise)));
}

void power_off() {
  std::fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
  _exit(0);
}

}  // namespace ioplan::kernel_test
