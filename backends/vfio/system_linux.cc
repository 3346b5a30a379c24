#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include "backends/vfio/system.h"

namespace ioplan::vfio {

namespace {

constexpr unsigned kCapIpcLock = 14;       // include/uapi/linux/capability.h
constexpr unsigned kHugePageShift = 26;    // where memfd_create takes log2 of the huge page's size (uapi/linux/memfd.h)
constexpr std::size_t kSmallFile = 65536;  // bytes; /proc/self/status and sysfs attributes are far below

tl::unexpected<Errno> last_error() { return fails_with(errno); }

class LinuxSystem final : public System {
 public:
  Reply<int> open(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) return last_error();
    return fd;
  }

  void close(int fd) override { ::close(fd); }

  Reply<void> ioctl(int fd, unsigned long request, void* argument) override {
    if (::ioctl(fd, request, argument) < 0) return last_error();
    return {};
  }

  Reply<FileIdentity> identify(int fd) override {
    struct stat found {};
    if (::fstat(fd, &found) < 0) return last_error();
    return FileIdentity{found.st_dev, found.st_ino, S_ISCHR(found.st_mode) ? found.st_rdev : 0};
  }

  Reply<int> ask(int fd, unsigned long request, std::uintptr_t argument) override {
    const int answer = ::ioctl(fd, request, argument);
    if (answer < 0) return last_error();
    return answer;
  }

  Reply<int> memfd_create(const std::string& name, std::uint64_t page) override {
    unsigned flags = MFD_CLOEXEC;
    if (page > page_size()) {
      flags |= MFD_HUGETLB | static_cast<unsigned>(std::countr_zero(page)) << kHugePageShift;
    }
    const int fd = ::memfd_create(name.c_str(), flags);
    if (fd < 0) return last_error();
    return fd;
  }

  Reply<void> ftruncate(int fd, std::uint64_t bytes) override {
    if (::ftruncate(fd, static_cast<off_t>(bytes)) < 0) return last_error();
    return {};
  }

  Reply<std::uint64_t> mmap(int fd, std::uint64_t offset, std::uint64_t bytes) override {
    void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (address == MAP_FAILED) return last_error();
    return reinterpret_cast<std::uintptr_t>(address);
  }

  void munmap(std::uint64_t address, std::uint64_t bytes) override {
    ::munmap(reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)), bytes);
  }

  Reply<std::string> read_file(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return last_error();
    const Descriptor closing = Descriptor::owned(*this, fd);
    std::string text(kSmallFile, '\0');
    const ssize_t got = ::read(fd, text.data(), text.size());
    if (got < 0) return last_error();
    text.resize(static_cast<std::size_t>(got));
    if (text.ends_with('\n')) text.pop_back();
    return text;
  }

  Reply<std::string> read_link(const std::string& path) override {
    std::error_code error;
    const auto target = std::filesystem::read_symlink(path, error);
    if (error) return fails_with(error.value());
    return target.string();
  }

  Reply<std::vector<std::string>> list(const std::string& path) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(path, error);
    while (!error && entry != std::filesystem::directory_iterator()) {
      names.push_back(entry->path().filename().string());
      entry.increment(error);
    }
    if (error) return fails_with(error.value());
    std::ranges::sort(names);
    return names;
  }

  std::uint64_t page_size() override { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

  std::uint64_t memlock_limit() override {
    rlimit limit{};
    if (::getrlimit(RLIMIT_MEMLOCK, &limit) < 0) return 0;
    return limit.rlim_cur == RLIM_INFINITY ? ~std::uint64_t{0} : limit.rlim_cur;
  }

  // The effective set; libcap would be a dependency for one bit.
  bool locks_without_limit() override {
    constexpr std::string_view kKey = "\nCapEff:\t";
    const auto status = read_file("/proc/self/status");
    if (!status) return false;
    const std::size_t at = status->find(kKey);
    if (at == std::string::npos) return false;
    std::uint64_t effective = 0;
    const char* digits = status->data() + at + kKey.size();
    std::from_chars(digits, status->data() + status->size(), effective, 16);
    return (effective >> kCapIpcLock & 1) != 0;
  }
};

}  // namespace

std::unique_ptr<System> linux_system() { return std::make_unique<LinuxSystem>(); }

}  // namespace ioplan::vfio
