#include "tests/kernel/guest/command.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "tests/kernel/guest/boot.h"

namespace ioplan::kernel_test {

namespace {

constexpr uid_t kUser = 1000;
std::uint64_t user_limit = 0;

std::string output_of(pid_t child) { return "/out." + std::to_string(child); }

bool write_new(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  std::fputs(text.c_str(), file);
  return std::fclose(file) == 0;
}

std::string hex(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string host_document(const Device& device, const Unit& unit) {
  return "apiVersion: ioplan/v1\nkind: Host\nname: guest\n"
         "kernel: {arch: x86_64, page_size: 4KiB, intel_iommu_sm: false}\n"
         "iommus: [{id: " +
         unit.id + ", driver: intel, cap: " + hex(unit.facts[UnitFact::cap].value_or(0)) +
         ", ecap: " + hex(unit.facts[UnitFact::ecap].value_or(0)) +
         "}]\n"
         "devices: [{id: \"" +
         device.id + "\", iommu: " + unit.id + ", group: " + std::to_string(*device.group) + "}]\n";
}

}  // namespace

std::string write_plan(const Guest& guest, std::uint64_t memory_bytes) {
  const Device& device = guest.host.devices[guest.pci.at(0)];
  const Unit& unit = guest.host.unit(*device.unit);
  const std::string vm = "apiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm\nmemory: {ranges: [{gpa: [0x0, " +
                         hex(memory_bytes - 1) + "]}]}\ndevices: [{host: \"" + device.id + "\"}]\n";
  if (!write_new(kHostFile, host_document(device, unit)) || !write_new("/vm.yaml", vm))
    return "the documents cannot be written";
  const Ran planned = run({"plan", kHostFile, "/vm.yaml", "-o", "json"}, Who::root);
  if (!exited(planned, 0)) return "no plan: " + planned.out;
  return write_new(kPlanFile, planned.out) ? "" : "the plan cannot be written";
}

void set_user_limit(std::uint64_t bytes) { user_limit = bytes; }

void become_user() {
  const rlimit limit{user_limit, user_limit};
  setrlimit(RLIMIT_MEMLOCK, &limit);
  if (setgid(kUser) != 0 || setuid(kUser) != 0) _exit(127);
}

std::string cdev_of(const Guest& guest, std::size_t nth) {
  const std::string& id = guest.host.devices[guest.pci.at(nth)].id;
  return "/dev/vfio/devices/" + list_folder("/sys/bus/pci/devices/" + id + "/vfio-dev").at(0);
}

pid_t start(const std::vector<std::string>& arguments, Who who, const std::function<void()>& prepare) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child != 0) return child;
  const int file = open(output_of(getpid()).c_str(), O_RDWR | O_CREAT | O_TRUNC, 0666);
  dup2(file, 1);
  dup2(file, 2);
  if (prepare) prepare();
  if (who == Who::user) become_user();
  std::vector<std::string> words = arguments;
  words.insert(words.begin(), "/bin/ioplan");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

Ran finish(pid_t child) {
  Ran ran;
  waitpid(child, &ran.status, 0);
  ran.out = read_file(output_of(child));
  unlink(output_of(child).c_str());
  return ran;
}

bool exited(const Ran& ran, int code) { return WIFEXITED(ran.status) && WEXITSTATUS(ran.status) == code; }

int as_user(const std::function<int()>& work) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    become_user();
    _exit(work());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

}  // namespace ioplan::kernel_test
