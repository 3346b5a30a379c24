// Elements that no chain of possible neighbours connects never meet in a block, so they are separate problems: two VMs'
// elements, but also elements of one VM that formats or rules keep apart.

#include <boost/graph/adjacency_matrix.hpp>
#include <boost/graph/connected_components.hpp>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

std::vector<std::vector<std::uint32_t>> components(const std::vector<ElementSet>& exclusive) {
  const std::size_t elements = exclusive.size();
  boost::adjacency_matrix<boost::undirectedS> may_share(elements);
  for (std::size_t e = 0; e < elements; ++e) {
    ElementSet neighbours = ~exclusive[e];
    for (auto f = neighbours.find_next(e); f != ElementSet::npos; f = neighbours.find_next(f)) {
      boost::add_edge(e, f, may_share);
    }
  }
  std::vector<std::size_t> label(elements);
  const std::size_t count = boost::connected_components(may_share, label.data());
  std::vector<std::vector<std::uint32_t>> result(count);
  for (std::size_t e = 0; e < elements; ++e) result[label[e]].push_back(static_cast<std::uint32_t>(e));
  return result;  // labels are given in order of the lowest vertex
}

}  // namespace ioplan::cover
