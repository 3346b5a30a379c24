// kind: VirtualMachine -> VirtualMachine, and who has been given which device so far.
#pragma once

#include <map>
#include <string>

#include "engine/document/reader.h"
#include "engine/model/host.h"
#include "engine/model/virtual_machine.h"

namespace ioplan {

// Devices that VMs have claimed: no device goes to two VMs, nor do the devices of one group.
class Assignments {
 public:
  explicit Assignments(const Host& host) : host_(host) {}

  void claim_host(Reader& reader, DeviceIndex device, const std::string& vm, const Node& node);
  void claim_mdev(Reader& reader, const std::string& uuid, const std::string& vm, const Node& node);

 private:
  struct Claim {
    std::string device;
    std::string vm;
    Node node;
  };
  static void fail_claimed(Reader& reader, const Claim& first, const Claim& second);

  const Host& host_;
  std::map<std::string, Claim> devices_;
  std::map<std::uint32_t, Claim> groups_;
};

// Devices come out sorted; `p2p` holds host ids, each pair and the list ascending. Errors in `reader`.
VirtualMachine read_vm(Reader& reader, const Node& root, const Host& host, Assignments& assignments);

}  // namespace ioplan
