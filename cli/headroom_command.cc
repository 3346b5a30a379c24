#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "cli/plan_text.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/lifecycle/headroom.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

std::string room_text(const DeviceHeadroom& d) {
  const std::string note = d.because.empty() ? "" : "; the guest notices " + d.because;
  switch (d.room) {
    case Room::joins:
      return fmt::format("yes, joins {}{}", d.hwpt, note);
    case Room::new_hwpt:
      return fmt::format("yes, with a new HWPT{}", note);
    case Room::after_moves:
      return fmt::format("yes, after moves that interrupt {} device{}{}", d.interrupted, d.interrupted == 1 ? "" : "s",
                         note);
    case Room::none:
      break;
  }
  return fmt::format("no: {} [{}]", d.because, d.rule);
}

std::string text_of(const Headroom& h) {
  std::string text = fmt::format("headroom of {}, each device alone\n\n", h.vm);
  for (const DeviceHeadroom& d : h.devices) text += fmt::format("  {:<16} {}\n", d.device, room_text(d));
  text += fmt::format("\n  memory           {} without moves, {} with them\n", approximate_size(h.memory_frozen),
                      approximate_size(h.memory_converge));
  return text;
}

std::string json_of(const Headroom& h) {
  Json document{{"vm", h.vm},
                {"devices", Json::array()},
                {"memory", {{"frozen", h.memory_frozen}, {"converge", h.memory_converge}}}};
  for (const DeviceHeadroom& d : h.devices) {
    document["devices"].push_back({{"device", d.device},
                                   {"room", kRoomNames[static_cast<std::size_t>(d.room)]},
                                   {"hwpt", d.hwpt},
                                   {"interrupted", d.interrupted},
                                   {"rule", d.rule},
                                   {"because", d.because}});
  }
  return document.dump(2) + "\n";
}

}  // namespace

Outcome headroom_command(const HeadroomArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto running = running_plan(arguments.plan, loaded->request);
  if (!running) return bad_input(running.error());
  const auto room = headroom(*running, loaded->request, arguments.vm, law_of(running->interface));
  if (!room) return bad_input(room.error());
  return {kYes, arguments.format == Format::text ? text_of(*room) : json_of(*room), ""};
}

}  // namespace ioplan::cli
