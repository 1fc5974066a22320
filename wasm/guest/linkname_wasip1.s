// This file lets the compiler accept the functions without body that are
// linked from elsewhere (runtime_wasip1.go).
