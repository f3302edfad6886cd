// The log viewer's form: times are typed in the viewer's zone and sent with theirs; without JavaScript they are UTC.

const two = (number) => String(number).padStart(2, "0");

function local(when) {
  const date = `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;
  return `${date}T${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

for (const form of document.querySelectorAll("form[data-times]")) {
  const fields = [...form.querySelectorAll("input[type=datetime-local]")];
  const given = new Map();
  for (const field of fields) {
    if (!field.value) continue;
    const when = new Date(`${field.value}Z`);
    field.value = local(when);
    given.set(field.name, when.toISOString());
  }
  const untouched = new Map(fields.map((field) => [field.name, field.value]));
  form.addEventListener("formdata", (event) => {
    for (const field of fields) {
      const text = event.formData.get(field.name);
      if (!text) event.formData.delete(field.name);
      else event.formData.set(field.name, text === untouched.get(field.name) ? given.get(field.name) : new Date(text).toISOString());
    }
    for (const name of ["q", "code"]) if (!event.formData.get(name)) event.formData.delete(name);
  });
}
