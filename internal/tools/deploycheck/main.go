// Command deploycheck holds the files of deploy to the types of those who read
// them: manifests to those of Kubernetes, jobs to those of Nomad. A field that
// there is not, or a value of another type, is an error.
//
//	deploycheck FILE...
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	failed := false
	for _, file := range os.Args[1:] {
		if err := check(file); err != nil {
			failed = true
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
		}
	}
	if failed || len(os.Args) < 2 {
		os.Exit(1)
	}
}

func check(file string) error {
	b, err := os.ReadFile(file)
	switch {
	case err != nil:
		return err
	case strings.HasSuffix(file, ".yaml"):
		return manifests(b)
	case strings.HasSuffix(file, ".nomad.hcl"):
		return nomadJob(file, b)
	}
	return errors.New("neither .yaml nor .nomad.hcl")
}

// manifests decodes all documents of a file, and refuses fields that are unknown
// or given twice.
func manifests(b []byte) error {
	scheme := runtime.NewScheme()
	var errs []error
	for _, add := range []func(*runtime.Scheme) error{core.AddToScheme, apps.AddToScheme, networking.AddToScheme, policy.AddToScheme, rbac.AddToScheme} {
		errs = append(errs, add(scheme))
	}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	docs := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b)))
	for i := 1; ; i++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		if _, _, err := codecs.UniversalDeserializer().Decode(doc, nil, nil); err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", i, err))
		}
	}
}
