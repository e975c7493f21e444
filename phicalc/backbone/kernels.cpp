// The sum over neighbours of a convolution and its derivatives, as operations of torch.
//
// phicalc/backbone/kernel_source.py writes what differs between degrees in place of two lines.
// Features of the neighbour, radial functions and messages stay in registers, for each edge and
// sixteen channels at a time.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

namespace {
constexpr int W = 16;
typedef float vec __attribute__((vector_size(64)));
typedef float loose __attribute__((vector_size(64), aligned(4), may_alias));  // in memory

inline vec load(const float* x) { return *reinterpret_cast<const loose*>(x); }
inline void store(float* x, vec value) { *reinterpret_cast<loose*>(x) = value; }
inline float total(vec x) {
  typedef float half __attribute__((vector_size(32)));
  typedef float quarter __attribute__((vector_size(16)));
  half a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  quarter b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
  return (b[0] + b[1]) + (b[2] + b[3]);
}

// DEGREES

// Radial functions of an edge from a table of cubic polynomials of the length; see tables.py.
struct Table {
  const double* lengths;
  const float* coefficients;
  int64_t intervals, columns, channels;
  double spacing;
  double* d_lengths;

  struct Edge { const float* row; float t; vec d_t; };
  Edge at(int64_t e) const {
    double x = lengths[e] / spacing;
    int64_t interval = static_cast<int64_t>(x);
    interval = interval < 0 ? 0 : interval < intervals ? interval : intervals - 1;
    float t = static_cast<float>(x - static_cast<double>(interval));
    return {coefficients + interval * 4 * columns, t, vec{}};
  }
  vec value(const Edge& edge, int path, int64_t c) const {
    const float* x = edge.row + path * channels + c;
    vec second = load(x + columns), third = load(x + 2 * columns), fourth = load(x + 3 * columns);
    return load(x) + edge.t * (second + edge.t * (third + edge.t * fourth));
  }
  void take(Edge& edge, int64_t, int path, int64_t c, vec d_r) const {
    const float* x = edge.row + path * channels + c;
    vec second = load(x + columns), third = load(x + 2 * columns), fourth = load(x + 3 * columns);
    edge.d_t += d_r * (second + edge.t * (2 * third + edge.t * (3 * fourth)));
  }
  void finish(const Edge& edge, int64_t e) const { d_lengths[e] = total(edge.d_t) / spacing; }
};

// Radial functions of an edge as they are given.
struct Values {
  const float* values;
  int64_t columns, channels;
  float* d_values;

  struct Edge { const float* row; };
  Edge at(int64_t e) const { return {values + e * columns}; }
  vec value(const Edge& edge, int path, int64_t c) const {
    return load(edge.row + path * channels + c);
  }
  void take(Edge&, int64_t e, int path, int64_t c, vec d_r) const {
    store(d_values + e * columns + path * channels + c, d_r);
  }
  void finish(const Edge&, int64_t) const {}
};

struct Edges {
  int64_t atoms, slots, channels;
  const int64_t* neighbor;
  const float* harmonics;
};

template <class D> inline bool is_padding(const float* y) {
  bool zero = true;
  for (int k = 0; k < D::outputs; k++) zero &= y[k] == 0;
  return zero;
}

template <class D, class Radial>
void convolve(const Edges& n, const float* sent, const Radial& radial, float* result) {
  const int64_t C = n.channels;
  at::parallel_for(0, n.atoms, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t c = 0; c < C; c += W) {
        vec out[D::outputs] = {};
        for (int64_t e = i * n.slots; e < (i + 1) * n.slots; e++) {
          const float* y = n.harmonics + e * D::outputs;
          if (is_padding<D>(y)) continue;
          auto edge = radial.at(e);
          vec h[D::inputs], r[D::paths];
          for (int m = 0; m < D::inputs; m++)
            h[m] = load(sent + (n.neighbor[e] * D::inputs + m) * C + c);
          for (int p = 0; p < D::paths; p++) r[p] = radial.value(edge, p, c);
          D::forward(y, h, r, out);
        }
        for (int k = 0; k < D::outputs; k++) store(result + (i * D::outputs + k) * C + c, out[k]);
      }
  });
}

template <class D, class Radial>
void differentiate(const Edges& n, int64_t begin, int64_t end, const float* gradient,
                   const float* sent, const Radial& radial, float* d_sent, float* d_harmonics) {
  const int64_t C = n.channels;
  for (int64_t i = begin; i < end; i++)
    for (int64_t e = i * n.slots; e < (i + 1) * n.slots; e++) {
      const float* y = n.harmonics + e * D::outputs;
      if (is_padding<D>(y)) continue;
      auto edge = radial.at(e);
      vec d_y[D::outputs] = {};
      for (int64_t c = 0; c < C; c += W) {
        vec h[D::inputs], d_h[D::inputs] = {}, g[D::outputs], r[D::paths], d_r[D::paths];
        for (int m = 0; m < D::inputs; m++)
          h[m] = load(sent + (n.neighbor[e] * D::inputs + m) * C + c);
        for (int k = 0; k < D::outputs; k++) g[k] = load(gradient + (i * D::outputs + k) * C + c);
        for (int p = 0; p < D::paths; p++) r[p] = radial.value(edge, p, c);
        D::backward(y, h, r, g, d_h, d_y, d_r);
        for (int p = 0; p < D::paths; p++) radial.take(edge, e, p, c, d_r[p]);
        for (int m = 0; m < D::inputs; m++) {
          float* x = d_sent + (n.neighbor[e] * D::inputs + m) * C + c;
          store(x, load(x) + d_h[m]);
        }
      }
      for (int k = 0; k < D::outputs; k++) d_harmonics[e * D::outputs + k] = total(d_y[k]);
      radial.finish(edge, e);
    }
}

// Calls `work` with the degrees that the numbers of components belong to.
template <class F> void choose(int64_t inputs, int64_t outputs, F&& work) {
  bool known = false;
  // CASES
  TORCH_CHECK(known, "no kernel for ", inputs, " and ", outputs, " components");
}

at::Tensor checked(const at::Tensor& x, at::ScalarType type) {
  TORCH_CHECK(x.scalar_type() == type, "expected numbers of type ", type, ", got ", x.scalar_type());
  return x.contiguous();
}

// What both kinds of radial functions have in common.
struct Inputs {
  at::Tensor sent, neighbor, harmonics;
  Edges edges;

  Inputs(const at::Tensor& sent_, const at::Tensor& neighbor_, const at::Tensor& harmonics_)
      : sent(checked(sent_, at::kFloat)), neighbor(checked(neighbor_, at::kLong)),
        harmonics(checked(harmonics_, at::kFloat)),
        edges{neighbor.size(0), neighbor.size(1), sent.size(2),
              neighbor.const_data_ptr<int64_t>(), harmonics.const_data_ptr<float>()} {
    TORCH_CHECK(edges.channels % W == 0, "channels must be a multiple of ", W);
  }

  template <class Radial> at::Tensor forward(const Radial& radial) const {
    auto result = at::empty({edges.atoms, harmonics.size(2), edges.channels}, sent.options());
    choose(sent.size(1), harmonics.size(2), [&](auto degrees) {
      convolve<decltype(degrees)>(edges, sent.const_data_ptr<float>(), radial,
                                  result.mutable_data_ptr<float>());
    });
    return result;
  }

  template <class Radial>
  std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& gradient_, const Radial& radial) const {
    auto gradient = checked(gradient_, at::kFloat);
    // Several atoms send to the same one: each thread sums into its own copy.
    const int64_t most = at::get_num_threads();
    const int64_t copies = std::max<int64_t>(1, std::min<int64_t>(most, edges.atoms / 8));
    auto sums = at::zeros({copies, sent.size(0), sent.size(1), sent.size(2)}, sent.options());
    auto d_harmonics = at::zeros(harmonics.sizes(), harmonics.options());
    choose(sent.size(1), harmonics.size(2), [&](auto degrees) {
      at::parallel_for(0, copies, 1, [&](int64_t first, int64_t last) {
        for (int64_t part = first; part < last; part++)
          differentiate<decltype(degrees)>(
              edges, edges.atoms * part / copies, edges.atoms * (part + 1) / copies,
              gradient.const_data_ptr<float>(), sent.const_data_ptr<float>(), radial,
              sums.mutable_data_ptr<float>() + part * sent.numel(),
              d_harmonics.mutable_data_ptr<float>());
      });
    });
    return {copies == 1 ? sums[0] : sums.sum(0), d_harmonics};
  }
};

Table table_of(const at::Tensor& lengths, const at::Tensor& table, int64_t channels, double spacing,
               double* d_lengths) {
  return {lengths.const_data_ptr<double>(), table.const_data_ptr<float>(), table.size(0),
          table.size(2), channels, spacing, d_lengths};
}

at::Tensor forward_of_lengths(const at::Tensor& sent, const at::Tensor& neighbor,
                              const at::Tensor& harmonics, const at::Tensor& lengths_,
                              const at::Tensor& table_, double spacing) {
  Inputs inputs(sent, neighbor, harmonics);
  auto lengths = checked(lengths_, at::kDouble), table = checked(table_, at::kFloat);
  return inputs.forward(table_of(lengths, table, sent.size(2), spacing, nullptr));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_of_lengths(
    const at::Tensor& gradient, const at::Tensor& sent, const at::Tensor& neighbor,
    const at::Tensor& harmonics, const at::Tensor& lengths_, const at::Tensor& table_,
    double spacing) {
  Inputs inputs(sent, neighbor, harmonics);
  auto lengths = checked(lengths_, at::kDouble), table = checked(table_, at::kFloat);
  auto d_lengths = at::zeros(lengths.sizes(), lengths.options());
  auto [d_sent, d_harmonics] = inputs.backward(
      gradient,
      table_of(lengths, table, sent.size(2), spacing, d_lengths.mutable_data_ptr<double>()));
  return {d_sent, d_harmonics, d_lengths};
}

at::Tensor forward_of_values(const at::Tensor& sent, const at::Tensor& neighbor,
                             const at::Tensor& harmonics, const at::Tensor& values_) {
  Inputs inputs(sent, neighbor, harmonics);
  auto values = checked(values_, at::kFloat);
  return inputs.forward(
      Values{values.const_data_ptr<float>(), values.size(2), sent.size(2), nullptr});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_of_values(
    const at::Tensor& gradient, const at::Tensor& sent, const at::Tensor& neighbor,
    const at::Tensor& harmonics, const at::Tensor& values_) {
  Inputs inputs(sent, neighbor, harmonics);
  auto values = checked(values_, at::kFloat);
  auto d_values = at::zeros(values.sizes(), values.options());
  auto [d_sent, d_harmonics] = inputs.backward(
      gradient, Values{values.const_data_ptr<float>(), values.size(2), sent.size(2),
                       d_values.mutable_data_ptr<float>()});
  return {d_sent, d_harmonics, d_values};
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(phicalc, m) {
  m.def("convolve_lengths(Tensor sent, Tensor neighbor, Tensor harmonics, Tensor lengths, "
        "Tensor table, float spacing) -> Tensor");
  m.def("convolve_lengths_backward(Tensor gradient, Tensor sent, Tensor neighbor, "
        "Tensor harmonics, Tensor lengths, Tensor table, float spacing) "
        "-> (Tensor, Tensor, Tensor)");
  m.def("convolve(Tensor sent, Tensor neighbor, Tensor harmonics, Tensor radial) -> Tensor");
  m.def("convolve_backward(Tensor gradient, Tensor sent, Tensor neighbor, Tensor harmonics, "
        "Tensor radial) -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(phicalc, CPU, m) {
  m.impl("convolve_lengths", &forward_of_lengths);
  m.impl("convolve_lengths_backward", &backward_of_lengths);
  m.impl("convolve", &forward_of_values);
  m.impl("convolve_backward", &backward_of_values);
}
