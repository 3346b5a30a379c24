// Elements that no chain of candidates connects never meet in a block, so they are separate problems.

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/connected_components.hpp>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

std::vector<std::vector<std::uint32_t>> components(const CoverInstance& instance) {
  // Vertices: elements, then candidates.
  using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::undirectedS>;
  Graph graph(instance.elements + instance.candidates.size());
  for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
    const ElementSet& accepts = instance.candidates[c].accepts;
    for (auto e = accepts.find_first(); e != ElementSet::npos; e = accepts.find_next(e)) {
      boost::add_edge(e, instance.elements + c, graph);
    }
  }
  std::vector<std::size_t> label(boost::num_vertices(graph));
  const std::size_t count = boost::connected_components(graph, label.data());
  std::vector<std::vector<std::uint32_t>> by_label(count), result;
  for (std::size_t e = 0; e < instance.elements; ++e) by_label[label[e]].push_back(static_cast<std::uint32_t>(e));
  for (auto& members : by_label) {
    if (!members.empty()) result.push_back(std::move(members));
  }
  return result;  // labels are given in order of the lowest vertex
}

}  // namespace ioplan::cover
