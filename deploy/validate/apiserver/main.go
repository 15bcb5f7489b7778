// Command apiserver says what an API server would refuse, or warn of, if it were sent these objects.
//
// It is Kubernetes' own code from decoding to validation, for built-in kinds and, with their definitions, for custom
// resources; only the storage behind it and what needs other objects (admission, quotas) is left out. It reads a list of
// objects as JSON from standard input, and writes for each the list of what is wrong with it. The one argument is the
// folder of the custom resources' definitions, as <kind>.<group>.json.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
)

// A fault of one object; its field is empty where the object as a whole is meant.
type fault struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func main() {
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		fail(err)
	}
	found := make([][]fault, len(objects))
	for number, text := range objects {
		found[number] = faults(text, os.Args[1])
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func faults(text []byte, definitions string) []fault {
	heard := warnings{}
	ctx := warning.WithWarningRecorder(context.Background(), &heard)
	found := []fault{}
	if err := create(ctx, text, definitions); err != nil {
		found = causes(err)
	}
	for _, text := range heard {
		found = append(found, fault{Message: text})
	}
	return found
}

// As an API server answers a POST: what it refuses the object for.
func create(ctx context.Context, text []byte, definitions string) error {
	var typed metav1.TypeMeta
	if err := json.Unmarshal(text, &typed); err != nil {
		return err
	}
	kind := typed.GroupVersionKind()
	decode, strategy := builtIn(kind)
	if strategy == nil {
		var err error
		if decode, strategy, err = custom(kind, definitions); err != nil {
			return err
		}
	}
	object, err := decode(text)
	if err != nil {
		return err
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	ctx = genericapirequest.WithNamespace(ctx, accessor.GetNamespace())
	ctx = genericapirequest.WithRequestInfo(ctx, &genericapirequest.RequestInfo{
		APIGroup: kind.Group, APIVersion: kind.Version, Verb: "create",
	})
	rest.FillObjectMetaSystemFields(accessor)
	return rest.BeforeCreate(strategy, ctx, object)
}

type decoder func(text []byte) (runtime.Object, error)

// An error field by field, where it says which.
func causes(err error) []fault {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		return []fault{{Message: err.Error()}}
	}
	found := []fault{}
	for _, cause := range status.Status().Details.Causes {
		found = append(found, fault{Field: cause.Field, Message: cause.Message})
	}
	return found
}

type warnings []string

func (heard *warnings) AddWarning(_, text string) { *heard = append(*heard, text) }
