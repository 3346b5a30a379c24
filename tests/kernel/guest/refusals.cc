// What `ioplan apply --backend iommufd` says on Linux when it may not or cannot: every way in that is closed, with the
// words that say how to open it; and the way in that needs no rights, descriptors that a parent has opened.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/command.h"

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kMemory = std::uint64_t{16} << 20;
constexpr int kIommu = 40, kDevice = 41;  // numbers that the child finds the descriptors at

class Trial {
 public:
  explicit Trial(const Guest& guest)
      : device_(guest.host.devices[guest.pci.at(0)].id), cdev_(cdev_of(guest, 0)), other_cdev_(cdev_of(guest, 1)) {}

  void run() {
    close_to_the_user();
    no_rights();
    descriptors();
    short_of_memlock();
    accounting();
    held_and_observed();
    not_bound();
    no_iommufd();
  }
  unsigned asked() const { return asked_; }
  unsigned wrong() const { return wrong_; }

 private:
  using Words = std::vector<std::string>;

  static Words apply(const Words& more = {}) {
    Words words = {"apply", kPlanFile, "--backend", "iommufd", kHostFile};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  void expect(const Ran& ran, int code, const Words& said) {
    ++asked_;
    bool right = exited(ran, code);
    for (const std::string& words : said) right = right && ran.out.find(words) != std::string::npos;
    if (right) return;
    ++wrong_;
    std::printf("expected exit %d and `%s`, got status %d:\n%s\n", code, said.empty() ? "" : said[0].c_str(),
                ran.status, ran.out.c_str());
  }

  static void close_to_the_user() {
    chmod("/dev/iommu", 0600);
    for (const std::string& name : list_folder("/dev/vfio/devices")) chmod(("/dev/vfio/devices/" + name).c_str(), 0600);
    set_user_limit(kMemory);
  }

  void no_rights() {
    expect(kernel_test::run(apply(), Who::user), 2,
           {"opening /dev/iommu: Permission denied (EACCES)", "pass an open descriptor"});
    chmod("/dev/iommu", 0666);
    expect(kernel_test::run(apply(), Who::user), 4,
           {"opening " + cdev_ + " of " + device_ + ": Permission denied (EACCES)", "give the node to your user"});
    chmod("/dev/iommu", 0600);
  }

  // The user, with /dev/iommu and a device from its parent.
  Ran with_descriptors(const std::string& iommu_node, const std::string& device_node, const Words& more) {
    const int iommu = open(iommu_node.c_str(), O_RDWR | O_CLOEXEC),
              device = open(device_node.c_str(), O_RDWR | O_CLOEXEC);
    const Ran ran = finish(start(apply(more), Who::user, [&] {
      dup2(iommu, kIommu);
      dup2(device, kDevice);
    }));
    close(device);
    close(iommu);
    return ran;
  }

  void descriptors() {
    const std::string iommu = std::to_string(kIommu), device = device_ + "=" + std::to_string(kDevice);
    const Words both = {"--iommu-fd", iommu, "--device-fd", device};
    expect(with_descriptors("/dev/iommu", cdev_, both), 0, {"applied on iommufd"});
    expect(with_descriptors("/dev/iommu", cdev_, both), 0, {"applied on iommufd"});  // closing them has freed all
    expect(with_descriptors("/dev/null", cdev_, both), 2, {"descriptor 40 is not /dev/iommu"});
    expect(with_descriptors("/dev/iommu", "/dev/null", both), 2, {"descriptor 41 is not the VFIO device " + device_});
    expect(with_descriptors("/dev/iommu", other_cdev_, both), 2, {"descriptor 41 is of ", ", not of " + device_});
    expect(with_descriptors("/dev/iommu", "/none", both), 2,
           {"descriptor 41, passed as the VFIO device", "is not open"});
    expect(with_descriptors("/dev/iommu", cdev_, {"--iommu-fd", "77"}), 2,
           {"descriptor 77, passed as /dev/iommu, is not open"});
    expect(with_descriptors("/dev/iommu", cdev_, {"--device-fd", "0000:ff:00.0=41"}), 2,
           {"the plan has no device `0000:ff:00.0`"});
    bound_already(both);
  }

  // One parent's descriptors, used twice.
  void bound_already(const Words& both) {
    const int iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC), device = open(cdev_.c_str(), O_RDWR | O_CLOEXEC);
    const auto pass = [&] {
      dup2(iommu, kIommu);
      dup2(device, kDevice);
    };
    expect(finish(start(apply(both), Who::user, pass)), 0, {"applied on iommufd"});
    expect(finish(start(apply(both), Who::user, pass)), 2, {"descriptor 41 of " + device_ + " is bound already"});
    expect(kernel_test::run(apply(), Who::root), 4,
           {"Invalid argument (EINVAL)", "another program has the device open"});
    close(device);
    close(iommu);
  }

  void short_of_memlock() {
    chmod("/dev/iommu", 0666);
    chmod(cdev_.c_str(), 0666);
    set_user_limit(kMemory - 4096);
    expect(kernel_test::run(apply(), Who::user), 2,
           {"the plan pins 16MiB, and this process may lock 16380KiB", "ulimit -l 16384"});
    set_user_limit(kMemory);
    expect(kernel_test::run(apply(), Who::user), 0, {"applied on iommufd"});
  }

  void accounting() {
    const Words per_process = apply({"--accounting", "per-process"});
    expect(kernel_test::run(per_process, Who::user), 4,
           {"counting locked memory by process: Operation not permitted", "CAP_SYS_RESOURCE"});
    expect(kernel_test::run(per_process, Who::root), 0, {"applied on iommufd"});
  }

  // From outside, and by the holder when it is asked to.
  void held_and_observed() {
    const Words observe = {"observe", kPlanFile, "--backend", "iommufd", kHostFile, "/vm.yaml"};
    expect(kernel_test::run(observe, Who::root), 1, {device_ + ".process: planned one, observed none"});
    const pid_t holder = start(apply({"--hold"}), Who::root);
    Ran seen = kernel_test::run(observe, Who::root);
    for (int i = 0; i < 50 && !exited(seen, 0); ++i) {
      usleep(100'000);
      seen = kernel_test::run(observe, Who::root);
    }
    expect(seen, 0, {"no drift", "not seen: ioas0, hwpt0"});
    kill(holder, SIGUSR1);
    usleep(1'000'000);
    kill(holder, SIGTERM);
    expect(finish(holder), 0, {"applied on iommufd", "no drift: everything that can be seen is as planned"});
    expect(kernel_test::run(observe, Who::root), 1, {device_ + ".process: planned one, observed none"});
  }

  void not_bound() {
    const std::string folder = "/sys/bus/pci/devices/" + device_;
    write_file(folder + "/driver/unbind", device_);
    expect(kernel_test::run(apply(), Who::root), 2,
           {device_ + " is not bound to vfio-pci: it has no driver",
            "echo " + device_ + " > /sys/bus/pci/drivers/vfio-pci/bind"});
    write_file("/sys/bus/pci/drivers/vfio-pci/bind", device_);
    expect(kernel_test::run(apply(), Who::root), 0, {"applied on iommufd"});
  }

  void no_iommufd() {
    rename("/dev/iommu", "/dev/iommu.away");
    expect(kernel_test::run(apply(), Who::root), 2,
           {"opening /dev/iommu: No such file or directory (ENOENT)", "CONFIG_IOMMUFD", "--backend type1"});
    rename("/dev/iommu.away", "/dev/iommu");
  }

  std::string device_, cdev_, other_cdev_;
  unsigned asked_ = 0, wrong_ = 0;
};

}  // namespace

Outcome refusals(const Guest& guest) {
  if (const std::string why = write_plan(guest, kMemory); !why.empty()) return {false, why};
  Trial trial(guest);
  trial.run();
  return {trial.wrong() == 0,
          std::to_string(trial.asked()) + " answers of `ioplan apply`, " + std::to_string(trial.wrong()) + " wrong"};
}

}  // namespace ioplan::kernel_test
