// The program itself in the guest: /bin/ioplan, run as root or as a user who may open the devices and lock just what
// the plan pins. A plan over the guest's first device is made by the program, too, from documents that are written
// here.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/kernel/guest/case.h"

namespace ioplan::kernel_test {

inline constexpr const char* kHostFile = "/host.yaml";
inline constexpr const char* kPlanFile = "/plan.json";

// Writes a host document of the guest's Intel unit and its first device, and the plan of a VM with that device and so
// much memory. Empty, or why not.
std::string write_plan(const Guest& guest, std::uint64_t memory_bytes);

struct Ran {
  int status = -1;  // of waitpid
  std::string out;  // stdout and stderr
};

enum class Who : std::uint8_t { root, user };

// What the user may lock.
void set_user_limit(std::uint64_t bytes);
// This process is the user's from now on.
void become_user();

// Starts /bin/ioplan, both outputs into a file that `finish` reads. `prepare` runs in the child before the exec.
pid_t start(const std::vector<std::string>& arguments, Who who, const std::function<void()>& prepare = {});
Ran finish(pid_t child);
inline Ran run(const std::vector<std::string>& arguments, Who who) { return finish(start(arguments, who)); }

std::string cdev_of(const Guest& guest, std::size_t nth);  // of its PCI devices

bool exited(const Ran& ran, int code);

// A child that becomes the user and answers with a number from 0 to 255.
int as_user(const std::function<int()>& work);

}  // namespace ioplan::kernel_test
