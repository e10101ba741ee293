// Tensors that Python hands over without a copy. Torch's come by a C function of DLPack (dlpack.h 1.2,
// DLPackExchangeAPI), which takes 1.8 microseconds less than a capsule each; a step of training hands over thousands.
// Others, and those of a torch that has no such function, come as nanobind takes them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>
#include <type_traits>

namespace riyaz {

// DLPack's table of functions; `view` describes a tensor whose shape and strides stay the tensor's own
struct ExchangeTable {
    uint32_t major, minor;
    void *older, *allocate, *take, *give;
    int (*view)(void* object, nanobind::dlpack::dltensor* out);
};

// That of torch's tensors, null for other objects
inline const ExchangeTable* exchange_of(nanobind::handle object) {
    static PyObject* tensor = nullptr;  // torch.Tensor, kept for good
    static const ExchangeTable* table = nullptr;
    if (!tensor) {
        const nanobind::object name = nanobind::steal(PyUnicode_FromString("torch"));
        const nanobind::object torch = nanobind::steal(PyImport_GetModule(name.ptr()));
        if (!torch.is_valid()) return PyErr_Clear(), nullptr;
        tensor = PyObject_GetAttrString(torch.ptr(), "Tensor");
        if (!tensor) return PyErr_Clear(), nullptr;
        const nanobind::object capsule = nanobind::steal(PyObject_GetAttrString(tensor, "__dlpack_c_exchange_api__"));
        if (capsule.is_valid())
            table = (const ExchangeTable*)PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
        PyErr_Clear();
        if (table && (table->major != 1 || !table->view)) table = nullptr;
    }
    return table && PyObject_TypeCheck(object.ptr(), (PyTypeObject*)tensor) ? table : nullptr;
}

// A tensor in memory of the CPU, valid while the call lasts that it is given to: of any type if Number is void, of any
// number of dimensions if DIMENSIONS is -1
template <class Number, int DIMENSIONS, bool CONTIGUOUS>
class Given {
  public:
    size_t ndim() const { return size_t(view_.ndim); }
    size_t shape(size_t i) const { return size_t(view_.shape[i]); }
    int64_t stride(size_t i) const { return view_.strides[i]; }  // in numbers
    nanobind::dlpack::dtype dtype() const { return view_.dtype; }
    Number* data() const { return (Number*)((uint8_t*)view_.data + view_.byte_offset); }
    size_t size() const {
        size_t all = 1;
        for (size_t i = 0; i < ndim(); i++) all *= shape(i);
        return all;
    }
    // Whether the object is such a tensor, which is taken then
    bool take(nanobind::handle object) {
        if (const ExchangeTable* table = exchange_of(object)) {
            if (table->view(object.ptr(), &view_)) return PyErr_Clear(), false;
        } else {
            if (!nanobind::try_cast(object, other_, false)) return false;
            view_ = {other_.data(),
                     {other_.device_type(), other_.device_id()},
                     int32_t(other_.ndim()),
                     other_.dtype(),
                     (int64_t*)other_.shape_ptr(),
                     (int64_t*)other_.stride_ptr(),
                     0};
        }
        if (view_.device.device_type != nanobind::device::cpu::value) return false;
        if constexpr (!std::is_void_v<Number>)
            if (view_.dtype != nanobind::dtype<Number>()) return false;
        if (DIMENSIONS >= 0 && view_.ndim != DIMENSIONS) return false;
        return !CONTIGUOUS || is_contiguous();
    }

  private:
    bool is_contiguous() const {
        int64_t next = 1;
        for (size_t i = ndim(); i-- > 0; next *= view_.shape[i])
            if (view_.shape[i] != 1 && view_.strides[i] != next) return size() == 0;
        return true;
    }

    nanobind::dlpack::dltensor view_ = {};
    nanobind::ndarray<> other_;  // keeps what is not torch's
};

using Array = Given<void, -1, true>;
using Rows = Given<void, 2, false>;
template <class Number, int DIMENSIONS>
using Numbers = Given<Number, DIMENSIONS, true>;

// Whether the numbers of x are bfloat16; throws std::invalid_argument for what is neither that nor float
template <class X>
bool is_bf16(const X& x) {
    if (x.dtype() == nanobind::dtype<float>()) return false;
    if (x.dtype() != nanobind::dlpack::dtype{uint8_t(nanobind::dlpack::dtype_code::Bfloat), 16, 1})
        throw std::invalid_argument("neither float32 nor bfloat16");
    return true;
}

}  // namespace riyaz

namespace nanobind::detail {

template <class Number, int DIMENSIONS, bool CONTIGUOUS>
struct type_caster<riyaz::Given<Number, DIMENSIONS, CONTIGUOUS>> {
    using Tensor = riyaz::Given<Number, DIMENSIONS, CONTIGUOUS>;
    NB_TYPE_CASTER(Tensor, const_name("tensor"))
    bool from_python(handle object, uint8_t, cleanup_list*) noexcept { return value.take(object); }
};

}  // namespace nanobind::detail
